"""Each verdict can be false: what a container of ours is made of, without one of its walls, leaks exactly the probes of
that wall; and those that several walls keep leak where all of these are missing."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from msgspec.structs import replace

from testbed.probes.model import Outcome, Probe
from testbed.probes.read import read_probes
from testbed.rungs.model import Isolation, Rung

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
# What every container of a kernel does: those of walls that it has not, and what is nobody's to keep.
OPEN = frozenset(one.name for one in read_probes() if not one.walls or one.wall in ("user", "time", "kernel"))
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


def find_leaked(outcomes: dict[str, Outcome]) -> set[str]:
    return {name for name, one in outcomes.items() if one.verdict == "permitted"} - OPEN


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
    expected = {one.name for one in probes if one.walls and one.walls <= set(walls)}
    if "root" in walls:
        expected -= BEHIND_CHROOT
    assert find_leaked(outcomes) == expected - find_impossible(outcomes)
    assert expected, "the wall has probes"


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
