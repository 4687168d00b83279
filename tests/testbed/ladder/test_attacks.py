"""Attacks side by side: each is on record in its target's place, one that cannot be made is said, and all end at once
with who is interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.images.model import Image
from runtime.lease import lease
from testbed.interruption import Interrupted
from testbed.lab import Lab
from testbed.ladder.attacks import Ground, attack_all, order_machines
from testbed.ladder.record import Record
from testbed.ladder.targets import Target
from testbed.platforms import registry
from testbed.platforms.rungs.platform import RungPlatform
from testbed.probes.objects import read_left
from testbed.probes.read import read_probes
from tests.testbed.ladder.walls import CONTAINER, RUNG

pytestmark = pytest.mark.root
NAMES = ("first", "second", "unprepared")
Made = Callable[[Callable[[str], None]], tuple[list[Target], dict[str, RungPlatform], Ground, Record]]


@pytest.fixture
def made(probe_image: Image, run_name: str, tmp_path: Path) -> Iterator[Made]:
    """Rungs that are prepared, but for one, where they are attacked, and their record; nothing of them is left."""
    with lease(run_name) as directory, Lab() as lab:
        isolations = (CONTAINER, replace(CONTAINER, root="chroot"), CONTAINER)
        rungs = [replace(RUNG, name=name, isolation=one) for name, one in zip(NAMES, isolations, strict=True)]
        here = {rung.name: RungPlatform(rung, run_name, directory, lab) for rung in rungs}
        for name in NAMES[:2]:
            here[name].prepare_rung()
        targets = [Target(rung.name, rung.name, rung) for rung in rungs]
        record = Record(tmp_path, "run", "", {}, NAMES, ())
        yield lambda progress: (targets, here, Ground(run_name, directory, lab, probe_image, progress), record)
        for platform in here.values():
            platform.close()
        assert read_left(directory) == ()


def test_each_is_on_record_in_its_place(made: Made) -> None:
    told: list[str] = []
    targets, here, ground, record = made(told.append)
    attack_all(targets, here, ground, record)
    rungs = [one.rung for one in record.outcomes]
    assert rungs == ["first"] * len(read_probes()) + ["second"] * len(read_probes())
    permitted = {(one.rung, one.probe) for one in record.outcomes if one.verdict == "permitted"}
    assert ("second", "files-second-chroot") in permitted and ("first", "files-second-chroot") not in permitted
    assert [one.rung for one in record.missing] == ["unprepared"] and "before it is prepared" in record.missing[0].why
    assert {f"attacking {name}" for name in NAMES} <= set(told)


def test_machines_that_take_longest_are_attacked_first(tmp_path: Path) -> None:
    lab = Lab()
    here = {name: registry.create(name, "run", tmp_path, lab, "kvm") for name in ("vm", "vm-cloud", "vm-restored")}
    ordered = order_machines([Target(name, name, None) for name in here], here)
    assert [one.name for one in ordered] == ["vm-restored", "vm-cloud", "vm"]


def test_all_end_with_who_is_interrupted(made: Made) -> None:
    def interrupt(line: str) -> None:
        if line == "attacking second":
            time.sleep(0.5)
            raise Interrupted(2)

    targets, here, ground, record = made(interrupt)
    began_s = time.monotonic()
    with pytest.raises(Interrupted):
        attack_all(targets, here, ground, record)
    assert time.monotonic() - began_s < 2.5, "an attack takes longer"
    assert record.outcomes == []
