"""Each verdict can be false: what a container of ours is made of, without one of its walls, leaks exactly the probes of
that wall; and those that several walls keep leak where all of these are missing."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from testbed.probes.read import read_probes
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


@pytest.mark.parametrize(
    "walls",
    [
        *((wall,) for wall in ("root", "pid", "ipc", "uts", "cgroup", "network", "capabilities", "seccomp", "devices")),
        *((wall,) for wall in ("masks", "limits", "no_new_privileges")),
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


def test_without_mapped_users_exactly_those_probes_leak(attacked: Attack) -> None:
    mapped = replace(RUNG, isolation=replace(CONTAINER, namespaces=(*CONTAINER.namespaces, "user")))
    probes = choose_probes(())
    whole, without = attacked("rung", mapped, probes), attacked("rung", mapped, probes, without=("user",))
    of_users = {one.name for one in probes if one.wall == "user"}
    assert {name for name, one in whole.items() if one.verdict == "permitted"} & of_users == set()
    assert of_users <= {name for name, one in without.items() if one.verdict == "permitted"} <= OPEN


def test_whole_it_leaks_nothing(attacked: Attack) -> None:
    outcomes = attacked("rung", RUNG, read_probes())
    assert find_leaked(outcomes) == set()
    assert {name for name in OPEN if outcomes[name].verdict == "blocked"} == set()
