"""Pressure for real: a fork bomb that limits hold hurts nobody, one without them hurts who is beside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.cgroups import Cgroup
from runtime.images.model import Image, ImageConfig, Layer
from testbed.lab import Lab
from testbed.ladder.model import Pressure
from testbed.ladder.pressure import find_most, judge, press
from testbed.neighbours.build import NEIGHBOUR
from testbed.platforms.peers.names import PEERS
from testbed.platforms.peers.platform import PeerPlatform
from testbed.platforms.rungs.platform import RungPlatform
from testbed.rungs.model import Isolation, Rung
from testbed.rungs.read import find_rung

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
    full = judge("a", "disk", 100.0, 90.0, {"took": 3.0, "refused": 7.0, "killed": 0.0})
    assert full.words == "fills its disk and was refused more: its neighbour did 90% of its work"
    assert not judge("a", "disk", 0.0, 0.0, {}).held, "a worker that did nothing alone shows nothing"


@pytest.mark.parametrize(
    ("rates", "found"),
    [([90.0], 90.0), ([18.0, 91.0], 91.0), ([18.0, 3.0, 50.0], 50.0), ([18.0, 3.0, 9.0], 18.0)],
    ids=["held", "disturbed once", "disturbed twice", "hurt"],
)
def test_who_is_hurt_is_so_in_each_look(rates: list[float], found: float) -> None:
    looks = iter(rates)
    assert find_most(lambda: next(looks), 100.0) == found and next(looks, None) is None


@pytest.fixture
def neighbour_image(tmp_path: Path) -> Image:
    layer = tmp_path / "neighbour"
    (layer / "tmp").mkdir(parents=True)
    shutil.copy2(NEIGHBOUR.build(), layer / "testbed-neighbour")
    entry = ImageConfig(entrypoint=("/testbed-neighbour",))
    return Image("testbed/neighbour", "sha256:1", entry, (Layer("sha256:2", layer),))


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture
def pressed(
    probe_image: Image, neighbour_image: Image, lab: Lab, cgroup_parent: str, run_name: str
) -> Callable[[Isolation, str], Pressure]:
    """What an attack does on a rung of an isolation; nothing of it is left."""
    lease = Path("/run/testbed") / run_name

    def run(isolation: Isolation, attack: str) -> Pressure:
        rung, told = replace(RUNG, isolation=isolation), list[str]()
        platform = RungPlatform(rung, run_name, lease, lab)
        platform.prepare_rung()
        images = (probe_image, neighbour_image)
        try:
            pressures, untried = press(
                platform, rung.name, lab, *images, lease, told.append, attacks=(attack,), window_s=0.6
            )
        finally:
            platform.close()
        assert not untried, untried
        (pressure,) = pressures
        assert (pressure.rung, pressure.attack) == ("pressed", attack) and len(told) == 1
        assert list(lease.glob("pressed-*")) == []
        return pressure

    return run


@pytest.mark.root
@pytest.mark.parametrize("limits", [("memory", "cpus", "pids"), ("memory", "cpus")], ids=["limited", "unlimited"])
def test_a_fork_bomb_hurts_its_neighbour_only_where_nothing_limits_it(
    limits: tuple[str, ...], pressed: Callable[[Isolation, str], Pressure]
) -> None:
    pressure = pressed(replace(LIMITED, limits=limits), "fork")
    assert pressure.held is ("pids" in limits)
    if "pids" in limits:
        assert pressure.figures["took"] < 128 < pressure.figures["refused"]
    else:
        assert pressure.figures["took"] > 128, "it is not ended by its limit of memory"


@pytest.mark.root
@pytest.mark.parametrize("attack", ["fork", "disk"])
def test_a_sandbox_that_may_not_write_to_its_root_works_and_is_attacked_where_it_may(
    attack: str, pressed: Callable[[Isolation, str], Pressure]
) -> None:
    isolation = find_rung("sandboxed").isolation
    assert isolation is not None
    pressure = pressed(isolation, attack)
    assert pressure.figures["alone_per_s"] > 10 and pressure.figures["took"] > 0


@pytest.mark.root
def test_a_quota_refuses_what_fills_a_disk(pressed: Callable[[Isolation, str], Pressure]) -> None:
    assert pressed(LIMITED, "disk").figures["refused"] == 0
    full = pressed(replace(LIMITED, quota=32), "disk")
    assert full.figures["refused"] > 0 == full.figures["killed"]


@pytest.mark.root
def test_one_that_ends_before_it_says_what_it_took_has_tried_nothing(
    probe_image: Image, neighbour_image: Image, lab: Lab, cgroup_parent: str, run_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Its neighbour would look as if it had been held."""
    lease = Path("/run/testbed") / run_name
    platform = RungPlatform(RUNG, run_name, lease, lab)
    platform.prepare_rung()

    def end_attacker(look: Callable[[], float], alone_per_s: float) -> float:
        Cgroup(f"{cgroup_parent}/pressed-attacker").kill()
        return find_most(look, alone_per_s)

    monkeypatch.setattr("testbed.ladder.pressure.find_most", end_attacker)
    try:
        images = (probe_image, neighbour_image)
        pressures, untried = press(platform, RUNG.name, lab, *images, lease, attacks=("spin", "watches"), window_s=0.3)
    finally:
        platform.close()
    assert [one.attack for one in pressures] == ["watches"], "it had said so before"
    (spin,) = untried
    assert spin.words.startswith("not put under pressure: spin: what attacks has ended before it said what it took: ")


@pytest.mark.root
@pytest.mark.parametrize("name", ["crun", "runc"])
def test_what_a_runtime_leaves_running_works_on_when_the_runtime_has_ended(
    name: str, probe_image: Image, neighbour_image: Image, lab: Lab, cgroup_parent: str, run_name: str
) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name}")
    lease = Path("/run/testbed") / run_name
    platform = PeerPlatform(PEERS[name], run_name, lease, lab)
    platform.prepare_program()
    try:
        images = (probe_image, neighbour_image)
        pressures, untried = press(platform, name, lab, *images, lease, attacks=("fork", "descriptors"), window_s=0.3)
    finally:
        platform.close()
    assert [one.attack for one in pressures] == ["fork", "descriptors"] and not untried
    assert all(one.figures["alone_per_s"] > 10 and one.figures["took"] > 0 for one in pressures)


@pytest.mark.root
def test_watches_are_of_a_user_of_the_hosts_whatever_the_limits_are(
    pressed: Callable[[Isolation, str], Pressure],
) -> None:
    """All that have the same mapped user share them; those of root are left alone here."""
    mapped = replace(LIMITED, namespaces=(*LIMITED.namespaces, "user"))
    pressure = pressed(mapped, "watches")
    assert pressure.figures["took"] > 0 and not pressure.held
