"""Each verdict can be false: what a container of ours is made of, without one of its walls, leaks exactly the probes of
that wall; and those that several walls keep leak where all of these are missing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from testbed.platforms.rungs.landlock import find_version
from testbed.probes.model import Outcome, Probe
from testbed.probes.read import read_probes
from testbed.rungs.model import Isolation, Rung
from testbed.rungs.walls import find_walls

pytestmark = pytest.mark.root
Attack = Callable[..., dict[str, Outcome]]
CONTAINER = Isolation(
    "pivot_root",
    ("mount", "pid", "ipc", "uts", "network", "cgroup"),
    "stack",
    capabilities="default",
    system_calls="default",
    devices="cgroup",
    limits=("memory", "cpus", "pids"),
    masks=True,
    no_new_privileges=True,
    read_only_sysfs=True,
)
RUNG = Rung("walled", "Walled", 2026, "containers", "a container of ours, as a rung", {}, CONTAINER)
LOCKED = replace(CONTAINER, landlock=True)
SCOPED = pytest.mark.skipif(find_version() < 6, reason="Landlock here keeps no signals and sockets inside (Linux 6.12)")
# A root that is only changed to keeps these, but not the second chroot: the wall has two parts.
BEHIND_CHROOT = frozenset(("files-host-path", "files-dot-dot", "files-open-directory"))
# What takes its time, left out where it is not what is looked for.
SLOW = ("traffic", "watched", "held_memory", "held_tasks", "used_processors")


def choose_probes(walls: Collection[str]) -> tuple[Probe, ...]:
    return tuple(one for one in read_probes() if one.walls & set(walls) or one.canary.partition(" ")[0] not in SLOW)


def find_impossible(outcomes: dict[str, Outcome]) -> set[str]:
    """What this host's kernel does for nobody, whatever is missing: it has no such call, or real-time groups."""
    none = {name for name, one in outcomes.items() if one.verdict == "untestable" or one.errno == "ENOSYS"}
    has_groups = any(Path("/sys/fs/cgroup").glob("*/cpu.rt_runtime_us"))
    paranoid = int(Path("/proc/sys/kernel/perf_event_paranoid").read_text())
    return none | ({"resources-real-time"} if has_groups else set()) | ({"interfaces-perf"} if paranoid > 2 else set())


def find_kept(isolation: Isolation, walls: Collection[str], probes: Sequence[Probe]) -> set[str]:
    """The probes that these walls keep, and no other of those that are there."""
    there = find_walls(isolation)
    return {one.name for one in probes if one.walls & there and one.walls & there <= set(walls)}


def find_leaked(outcomes: dict[str, Outcome], isolation: Isolation = CONTAINER) -> set[str]:
    """What was done of all that the walls of this isolation keep."""
    kept = find_kept(isolation, find_walls(isolation), read_probes())
    return {name for name, one in outcomes.items() if one.verdict == "permitted"} & kept


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
    expected = find_kept(CONTAINER, walls, probes)
    if "root" in walls:
        expected -= BEHIND_CHROOT
    assert find_leaked(outcomes) == expected - find_impossible(outcomes)
    assert expected, "the wall has probes"


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
    expected = find_kept(LOCKED, walls, probes)
    assert find_leaked(outcomes, LOCKED) - {"users-setuid-program"} == expected - find_impossible(outcomes)
    assert expected


@pytest.mark.parametrize("kind", ["user", "time"])
def test_without_a_namespace_that_few_have_exactly_its_probes_leak(kind: str, attacked: Attack) -> None:
    isolation = replace(CONTAINER, namespaces=(*CONTAINER.namespaces, kind))
    rung, probes = replace(RUNG, isolation=isolation), choose_probes(())
    expected = find_kept(isolation, (kind,), probes)
    assert find_leaked(attacked("rung", rung, probes), isolation) == set()
    assert find_leaked(attacked("rung", rung, probes, without=(kind,)), isolation) == expected and len(expected) >= 3


def test_whole_it_leaks_nothing_but_what_it_has_no_wall_for(attacked: Attack) -> None:
    outcomes = attacked("rung", RUNG, read_probes())
    assert find_leaked(outcomes) == set()
    open_ = {one.name for one in read_probes() if not one.walls & find_walls(CONTAINER)}
    assert {name for name in open_ if outcomes[name].verdict == "blocked"} == set()
