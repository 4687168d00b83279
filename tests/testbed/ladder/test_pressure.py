"""Pressure for real: a fork bomb that limits hold hurts nobody, one without them hurts who is beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.images.model import Image, ImageConfig, Layer
from testbed.lab import Lab
from testbed.ladder.pressure import ATTACKS, judge, press
from testbed.neighbours.build import NEIGHBOUR
from testbed.platforms.rungs.platform import RungPlatform
from testbed.rungs.model import Isolation, Rung

LIMITED = Isolation(
    "pivot_root",
    ("mount", "pid", "ipc", "uts", "network"),
    "stack",
    capabilities="default",
    devices="cgroup",
    limits=("memory", "cpus", "pids"),
)
RUNG = Rung("pressed", "Pressed", 2026, "containers", "a container", {}, LIMITED)


def test_who_does_less_than_half_of_its_work_is_hurt() -> None:
    assert judge("a", "fork", 100.0, 50.0, {"took": 3.0}).held
    hurt = judge("a", "fork", 100.0, 49.0, {"took": 3.0})
    assert not hurt.held and hurt.words == "starts processes that start processes: its neighbour did 49% of its work"
    assert hurt.figures["part"] == 0.49 and hurt.figures["took"] == 3.0
    assert judge("a", "spin", 100.0, 180.0, {}).words.endswith("did 100% of its work")
    assert not judge("a", "disk", 0.0, 0.0, {}).held, "a worker that did nothing alone shows nothing"


@pytest.fixture
def neighbour_image(tmp_path: Path) -> Image:
    layer = tmp_path / "neighbour"
    layer.mkdir()
    shutil.copy2(NEIGHBOUR.build(), layer / "testbed-neighbour")
    entry = ImageConfig(entrypoint=("/testbed-neighbour",))
    return Image("testbed/neighbour", "sha256:1", entry, (Layer("sha256:2", layer),))


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.mark.root
@pytest.mark.parametrize("limits", [("memory", "cpus", "pids"), ("memory", "cpus")], ids=["limited", "unlimited"])
def test_a_fork_bomb_hurts_its_neighbour_only_where_nothing_limits_it(
    limits: tuple[str, ...], probe_image: Image, neighbour_image: Image, lab: Lab, cgroup_parent: str, run_name: str
) -> None:
    lease = Path("/run/testbed") / run_name
    rung = replace(RUNG, isolation=replace(LIMITED, limits=limits))
    platform = RungPlatform(rung, run_name, lease, lab)
    platform.prepare_rung()
    try:
        attacks = ("fork", "watches") if "pids" in limits else ("fork",)
        told = list[str]()
        pressures = press(
            platform, rung.name, lab, probe_image, neighbour_image, lease, told.append, attacks=attacks, window_s=0.6
        )
    finally:
        platform.close()
    assert [one.attack for one in pressures] == list(attacks) and len(told) == len(attacks)
    assert pressures[0].held is ("pids" in limits)
    if "pids" in limits:
        assert pressures[0].figures["took"] < 128 < pressures[0].figures["refused"]
        assert pressures[1].figures["took"] > 0 and not pressures[1].held, "watches are of a user of the host's"
    assert list(lease.glob("pressed-*")) == [] and set(attacks) <= ATTACKS.keys()
