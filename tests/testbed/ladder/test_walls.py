"""Each verdict can be false: what a container of ours is made of, without one of its walls, leaks exactly the probes of
that wall; and those that several walls keep leak where all of these are missing."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from testbed.platforms.rungs.landlock import find_version
from testbed.probes.read import read_probes
from testbed.rungs.model import WALLS
from testbed.rungs.read import find_rung, read_history
from testbed.rungs.walls import ALWAYS_THERE, find_walls
from tests.testbed.ladder.walls import (
    BEHIND_CHROOT,
    CONTAINER,
    OPEN,
    RUNG,
    Attack,
    choose_probes,
    find_expected,
    find_impossible,
    find_leaked,
)

pytestmark = pytest.mark.root
LOCKED = replace(CONTAINER, landlock=True)
QUOTA = replace(CONTAINER, quota=64)
# As jails had it: one address of the host's stack.
ADDRESS = replace(
    CONTAINER, namespaces=tuple(one for one in CONTAINER.namespaces if one != "network"), network="address"
)
SCOPED = pytest.mark.skipif(find_version() < 6, reason="Landlock here keeps no signals and sockets inside (Linux 6.12)")


# Walls that a container of ours has, those that few rungs have, and those with a test of their own below.
ITS_OWN = ("root", "pid", "ipc", "uts", "cgroup", "network", "capabilities", "seccomp", "devices", "masks", "limits",
           "no_new_privileges")  # fmt: skip
FEW_HAVE = ("user", "time")
OTHERS = ("landlock", "quota", "address")


def test_every_wall_that_can_be_left_out_is() -> None:
    assert {*ITS_OWN, *FEW_HAVE, *OTHERS} == set(WALLS) - ALWAYS_THERE.keys()
    assert set(ITS_OWN) == find_walls(CONTAINER)


@pytest.mark.parametrize(
    "walls",
    [
        *((wall,) for wall in ITS_OWN),
        ("capabilities", "seccomp"),
        ("cgroup", "capabilities", "seccomp"),
        ("pid", "capabilities", "seccomp"),
    ],
    ids="+".join,
)
def test_without_a_wall_exactly_its_probes_leak(walls: tuple[str, ...], attacked: Attack) -> None:
    probes = choose_probes(walls)
    outcomes = attacked("rung", RUNG, probes, without=walls)
    expected = find_expected(walls, probes)
    assert find_leaked(outcomes) == expected - find_impossible(outcomes, walls)
    assert expected, "the wall has probes"
    assert {name for name in OPEN & outcomes.keys() if outcomes[name].verdict == "blocked"} == set()


def test_a_root_that_is_only_changed_to_keeps_the_hosts_files_until_it_is_the_hosts(attacked: Attack) -> None:
    probes = [one for one in read_probes() if one.wall == "root"]
    changed = replace(RUNG, isolation=replace(CONTAINER, root="chroot"))
    assert find_leaked(attacked("rung", changed, probes)) == {"files-second-chroot"}
    assert find_leaked(attacked("rung", changed, probes, without=("root",))) >= BEHIND_CHROOT


@pytest.mark.parametrize("walls", [("landlock",), ("pid",), ("pid", "landlock"), ("network", "landlock")], ids="+".join)
@SCOPED
def test_landlock_keeps_what_nothing_else_keeps_and_what_others_would(walls: tuple[str, ...], attacked: Attack) -> None:
    rung = replace(RUNG, isolation=LOCKED)
    # What an attempt makes of its own is made in /, where nobody may write who is restricted so.
    probes = [one for one in choose_probes(walls) if one.kind not in ("devices", "resources") and not one.own]
    outcomes = attacked("rung", rung, probes, without=walls)
    expected = find_expected(walls, probes, LOCKED)
    assert find_leaked(outcomes, LOCKED) - {"users-setuid-program"} == expected - find_impossible(outcomes, walls)
    assert expected


def test_without_a_quota_exactly_the_probe_of_the_disk_leaks(attacked: Attack) -> None:
    rung, probes = replace(RUNG, isolation=QUOTA), [one for one in choose_probes(("quota",)) if one.kind == "resources"]
    expected = find_expected(("quota",), probes, QUOTA)
    assert find_leaked(attacked("rung", rung, probes), QUOTA) == set()
    assert find_leaked(attacked("rung", rung, probes, without=("quota",)), QUOTA) == expected == {"resources-disk"}


def test_without_one_address_exactly_the_probes_of_others_leak(attacked: Attack) -> None:
    rung, probes = (
        replace(RUNG, isolation=ADDRESS),
        [one for one in choose_probes(("address",)) if one.kind == "network"],
    )
    expected = find_expected(("address",), probes, ADDRESS)
    assert find_leaked(attacked("rung", rung, probes), ADDRESS) == set()
    assert find_leaked(attacked("rung", rung, probes, without=("address",)), ADDRESS) == expected
    assert len(expected) >= 5


@pytest.mark.parametrize("name", [one.name for one in read_history().rungs if one.isolation and one.isolation.quota])
def test_rungs_that_had_a_quota_keep_it(name: str, attacked: Attack) -> None:
    probes = [one for one in read_probes() if one.wall == "quota"]
    assert {one.verdict for one in attacked("rung", find_rung(name), probes).values()} == {"blocked"}


@pytest.mark.parametrize("kind", FEW_HAVE)
def test_without_a_namespace_that_few_have_exactly_its_probes_leak(kind: str, attacked: Attack) -> None:
    isolation = replace(CONTAINER, namespaces=(*CONTAINER.namespaces, kind))
    rung, probes = replace(RUNG, isolation=isolation), choose_probes(())
    expected = find_expected((kind,), probes, isolation)
    assert find_leaked(attacked("rung", rung, probes), isolation) == set()
    assert find_leaked(attacked("rung", rung, probes, without=(kind,)), isolation) == expected and len(expected) >= 3


def test_whole_it_leaks_nothing_but_what_it_has_no_wall_for(attacked: Attack) -> None:
    outcomes = attacked("rung", RUNG, read_probes())
    assert find_leaked(outcomes) == set()
    assert {name for name in OPEN if outcomes[name].verdict == "blocked"} == set()
