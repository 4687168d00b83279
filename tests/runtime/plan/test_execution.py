"""From the finished root to execve, and further processes beside the first: what is done, in which order."""

from __future__ import annotations

import os
from errno import EEXIST, EPERM, EROFS
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.config.process import ConsoleSize, ExecCPUAffinity, Process, Rlimit, User
from runtime.config.seccomp import Seccomp
from runtime.config.types import Linux, MemoryPolicy
from runtime.errors import UsageError
from runtime.plan import constants as k
from runtime.plan import steps as s
from runtime.plan.execution import (
    NAMESPACE_FILES,
    NAMESPACE_FLAGS,
    directory_steps,
    exec_plan,
    join_container,
    keeps_groups,
    kinds_of,
    memory_policy_steps,
    process_end,
    processors,
    seccomp_step,
)
from runtime.plan.root import HOLD_ROOT
from tests.runtime.plan.bundles import HOSTS, PROCESS, V1, V2, assert_order, config, of_type, positions

FILTER = s.SeccompFilter(b"program")
WAITING = (s.WaitStart(),)


def end(process: Process = PROCESS, **changes: Any) -> list[s.Step]:
    wanted: dict[str, Any] = {
        "preserve_fds": 0, "keep_groups": False, "grantable": k.ALL_CAPABILITIES, "seccomp": FILTER, "wait": WAITING,
    }  # fmt: skip
    return [*process_end(process, **{**wanted, **changes})]


def executed(process: Process = PROCESS, kinds: str = "mount pid", **changes: Any) -> s.Plan:
    linux = changes.pop("linux", Linux())
    wanted: dict[str, Any] = {"hierarchies": V1, "pid": 42, "cgroup": "c", "preserve_fds": 0, "keep_groups": False}
    return exec_plan(process, config(kinds, linux=linux), **{**wanted, **changes})


# --- what a configuration says


def test_namespaces_by_kind() -> None:
    assert kinds_of(config("mount uts=/ns/uts")) == {"mount": "", "uts": "/ns/uts"}


@pytest.mark.parametrize(
    ("rootless", "annotations", "kept"),
    [
        (False, {}, False),
        (False, {"a": "1"}, False),
        (True, {}, True),
        (False, {"run.oci.keep_original_groups": "1"}, True),
    ],
)
def test_who_keeps_its_groups(rootless: bool, annotations: dict[str, str], kept: bool) -> None:
    assert keeps_groups(config(annotations=annotations), rootless) == kept


@pytest.mark.parametrize(
    ("cwd", "made"),
    [("/", []), ("/.", []), ("/a", ["a"]), ("/a/b/c", ["a", "a/b", "a/b/c"]), ("/a/../b/", ["b"]), ("//a", ["a"])],
)
def test_the_working_directory_is_made_part_by_part(cwd: str, made: list[str]) -> None:
    """As far as it can be: where it cannot, entering it says so."""
    steps = of_type(directory_steps(Process(cwd)), s.Mkdir)
    assert [step.path for step in steps] == made
    assert all(step.inside and {EEXIST, EROFS, EPERM} <= {*step.tolerate} for step in steps)


@pytest.mark.parametrize(
    ("policy", "mode", "nodes"),
    [
        (MemoryPolicy("MPOL_DEFAULT"), 0, ()),
        (MemoryPolicy("MPOL_BIND", "0-2,4"), 2, (0, 1, 2, 4)),
        (MemoryPolicy("MPOL_INTERLEAVE", "0", ("MPOL_F_STATIC_NODES",)), 3 | 1 << 15, (0,)),
        (MemoryPolicy("MPOL_BIND", "0", ("MPOL_F_NUMA_BALANCING",) * 2), 2 | 1 << 13, (0,)),
        (MemoryPolicy("MPOL_BIND", "1023"), 2, (1023,)),
    ],
)
def test_a_memory_policy(policy: MemoryPolicy, mode: int, nodes: tuple[int, ...]) -> None:
    assert memory_policy_steps(config(linux=Linux(memory_policy=policy))) == [s.MemoryPolicy(mode, nodes)]


@pytest.mark.parametrize(
    ("policy", "named"),
    [
        (MemoryPolicy("bind"), "config.json: linux.memoryPolicy.mode: 'bind'"),
        (MemoryPolicy("MPOL_BIND", "0", ("X",)), "config.json: linux.memoryPolicy.flags: 'X'"),
        (MemoryPolicy("MPOL_BIND", "1024"), "config.json: linux.memoryPolicy.nodes: '1024' .* below 1024"),
    ],
)
def test_a_memory_policy_that_the_kernel_does_not_have(policy: MemoryPolicy, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        memory_policy_steps(config(linux=Linux(memory_policy=policy)))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0", (0,)),
        ("0-3,7", (0, 1, 2, 3, 7)),
        ("7,0-1,1", (0, 1, 7)),
        ("5-5", (5,)),
        (" 1 , 2", (1, 2)),
        ("8191", (8191,)),
    ],
)
def test_a_list_of_processors(text: str, numbers: tuple[int, ...]) -> None:
    assert processors(text) == numbers


@pytest.mark.parametrize("text", ["", ",", "a", "-1", "1-", "3-1", "0-8192", "8192", "1--2", "1-2-3", "٣", "9" * 30])
def test_what_is_no_list_of_processors(text: str) -> None:
    with pytest.raises(UsageError, match=r"process\.execCPUAffinity: .* is not a list of numbers below 8192"):
        processors(text)


def test_only_a_filter_that_is_asked_for_is_compiled() -> None:
    assert seccomp_step(config()) is None
    step = seccomp_step(config(linux=Linux(seccomp=Seccomp("SCMP_ACT_ALLOW"))))
    assert isinstance(step, s.SeccompFilter) and step.program


# --- from the finished root to execve


def test_with_no_new_privileges_the_filter_is_last() -> None:
    steps = end()
    assert_order(
        steps,
        s.BoundingSet,
        s.SetUser,
        s.Capabilities,
        s.NoNewPrivileges,
        s.CheckExecutable,
        s.WaitStart,
        FILTER,
        s.Exec,
    )
    assert steps[-2] == FILTER


def test_without_it_the_filter_comes_while_there_are_privileges() -> None:
    steps = end(replace(PROCESS, no_new_privileges=False))
    assert_order(steps, s.CheckExecutable, s.WaitStart, FILTER, s.BoundingSet, s.SetUser, s.Capabilities, s.Exec)
    assert not of_type(steps, s.NoNewPrivileges)


@pytest.mark.parametrize("strict", [True, False])
def test_nothing_is_filtered_and_nobody_awaited_unless_asked_for(strict: bool) -> None:
    process = replace(PROCESS, no_new_privileges=strict)
    bare, whole = end(process, seccomp=None, wait=()), end(process)
    assert [step for step in whole if step not in (FILTER, *WAITING)] == bare


@pytest.mark.parametrize("strict", [True, False])
def test_the_directory_is_entered_below_the_root_before_the_user_changes(strict: bool) -> None:
    """Where root may go, and descriptors that leaked do not lead out of the root."""
    steps = end(replace(PROCESS, cwd="/work", no_new_privileges=strict), preserve_fds=2)
    assert_order(steps, s.CloseOnExec(5), s.Chdir("/work", confined=True), s.CheckExecutable, s.Exec)
    assert_order(steps, s.Chdir, s.SetUser)


@pytest.mark.parametrize(
    ("env", "given", "at_home"),
    [
        (("HOME=/h",), ("HOME=/h",), False),
        ((), ("HOME=/",), True),
        (("HOME=", "A=1"), ("A=1", "HOME=/"), True),
        (("A=1", "B=2", "A=3", "HOME=/h"), ("A=3", "B=2", "HOME=/h"), False),
    ],
)
def test_the_environment(env: tuple[str, ...], given: tuple[str, ...], at_home: bool) -> None:
    steps = end(replace(PROCESS, env=env, user=User(7)))
    (command,) = of_type(steps, s.Exec)
    assert (command.env, command.at_home) == (given, at_home)
    assert of_type(steps, s.FindHome) == ([s.FindHome(7)] if at_home else [])


@pytest.mark.parametrize(("env", "path"), [(("PATH=/a", "PATH=/b"), "/b"), (("PATH=",), ""), (("XPATH=/x",), None)])
def test_the_command_is_looked_for_where_it_will_be_executed_from(env: tuple[str, ...], path: str | None) -> None:
    steps = end(replace(PROCESS, env=env, args=("tool", "-x")))
    (look,), (command,) = of_type(steps, s.CheckExecutable), of_type(steps, s.Exec)
    assert (look.program, look.search) == ("tool", command.search) and command.args == ("tool", "-x")
    assert command.search == path if path is not None else "/bin" in command.search


@pytest.mark.parametrize(
    ("soft", "hard", "early", "late"),
    [
        (1024, 4096, [(1024, 4096)], []),
        (128, 128, [(128, 128)], []),
        (127, 4096, [(128, 4096)], [(127, 4096)]),
        (3, 3, [(128, 128)], [(3, 3)]),
        (0, 0, [(128, 128)], [(0, 0)]),
    ],
)
def test_few_descriptors_are_a_limit_once_the_plan_needs_no_more(
    soft: int, hard: int, early: list[tuple[int, int]], late: list[tuple[int, int]]
) -> None:
    """Those of the plan itself lie below 128; raising a limit again would take a privilege that is gone by then."""
    limits = (Rlimit("RLIMIT_NOFILE", soft, hard), Rlimit("RLIMIT_CPU", 1, 1))
    steps = end(replace(PROCESS, rlimits=limits))
    waiting = steps.index(s.WaitStart())

    def limited(part: list[s.Step]) -> list[tuple[int, int]]:
        return [(step.soft, step.hard) for step in of_type(part, s.SetRlimit) if step.resource == k.RLIMIT_NOFILE]

    assert (limited(steps[:waiting]), limited(steps[waiting:])) == (early, late)
    assert s.SetRlimit(k.RLIMITS.index("RLIMIT_CPU"), 1, 1) in steps[:waiting], "others stay where they are"


def test_with_privileges_limits_come_after_the_wait_as_they_are() -> None:
    process = replace(PROCESS, no_new_privileges=False, rlimits=(Rlimit("RLIMIT_NOFILE", 3, 3),))
    assert_order(end(process), s.WaitStart, s.SetRlimit(k.RLIMIT_NOFILE, 3, 3), s.Exec)


def test_groups_and_grants_are_passed_on() -> None:
    steps = end(replace(PROCESS, user=User(1, 2, additional_gids=(3,))), keep_groups=True)
    assert s.SetUser(1, 2, (3,), True) in steps


# --- further processes


def test_every_namespace_has_a_file() -> None:
    """namespaces(7), "The /proc/pid/ns/ directory"."""
    others = {"network": "net", "mount": "mnt"}
    assert {kind: others.get(kind, kind) for kind in NAMESPACE_FLAGS} == NAMESPACE_FILES


@pytest.mark.parametrize(
    "kinds", [(), ("mount",), ("pid", "uts"), ("mount", "user", "network"), tuple(NAMESPACE_FLAGS)]
)
def test_a_container_is_joined_by_descriptors_that_are_all_opened_first(kinds: tuple[str, ...]) -> None:
    steps = join_container(42, kinds)
    opened = {f"/proc/self/fd/{step.fd}": step.path for step in of_type(steps, s.Open)}
    joined = {opened[step.path]: step.flag for step in of_type(steps, s.JoinNamespace)}
    assert joined == {f"/proc/42/ns/{NAMESPACE_FILES[kind]}": NAMESPACE_FLAGS[kind] for kind in kinds}
    if kinds:
        assert_order(steps, s.Open, s.JoinNamespace)
    flags = [step.flag for step in of_type(steps, s.JoinNamespace)]
    if "time" in kinds:
        assert flags.pop(0) == k.CLONE_NEWTIME, "whoever made it was privileged outside of the user namespace"
    assert "user" not in kinds or flags[0] == k.CLONE_NEWUSER, "it gives the rights for the others"
    assert "mount" not in kinds or flags[-1] == k.CLONE_NEWNS
    assert max((step.fd for step in of_type(steps, s.Open)), default=0) < 128, "a limit of descriptors leaves these"


def test_without_a_mount_namespace_the_root_is_entered_by_itself() -> None:
    steps = join_container(42, ("pid",))
    (root,) = (step for step in of_type(steps, s.Open) if step.path == "/proc/42/root")
    assert root.flags == os.O_PATH | os.O_DIRECTORY
    assert steps[-1] == s.Chroot(f"/proc/self/fd/{root.fd}")
    assert not of_type(join_container(42, ("mount",)), s.Chroot)


@pytest.mark.parametrize("found", HOSTS.values(), ids=HOSTS)
def test_cgroups_are_joined_before_the_container(found: Hierarchies) -> None:
    """They cannot be reached from inside. Its processors are those of the cgroup."""
    plan = executed(hierarchies=found)
    paths = [f"{mount}/c/{'cgroup.procs' if mount == found.unified else 'tasks'}" for mount in found.used]
    joins = positions(plan.parent, lambda step: getattr(step, "path", "") in paths)
    assert len(joins) == len(paths)
    assert_order(plan.parent, lambda step: getattr(step, "path", "") in paths, s.Affinity(), s.JoinNamespace)
    assert plan.clone_flags == 0


def test_without_a_cgroup_nothing_is_joined_and_processors_stay() -> None:
    plan = executed(cgroup="")
    assert not of_type(plan.steps(), s.Affinity) and not positions(plan.steps(), lambda step: "/cg" in str(step))


def test_a_hierarchy_may_have_another_cgroup() -> None:
    written = [step.path for step in of_type(executed(below={Path("/cg/memory"): "c/below"}).parent, s.Write)]
    assert "/cg/memory/c/below/tasks" in written and "/cg/cpu/c/tasks" in written
    alone = executed(cgroup="", below={Path("/cg/memory"): "c/below"})
    assert [step.path for step in of_type(alone.parent, s.Write)] == ["/cg/memory/c/below/tasks"]


@pytest.mark.parametrize(
    ("affinity", "parent", "child"),
    [
        (None, [()], []),
        (ExecCPUAffinity(), [()], []),
        (ExecCPUAffinity("0-1"), [(0, 1)], []),
        (ExecCPUAffinity("", "3"), [], [(3,)]),
        (ExecCPUAffinity("0", "3"), [(0,)], [(3,)]),
    ],
)
def test_processors_when_it_joins_and_when_it_executes(
    affinity: ExecCPUAffinity | None, parent: list[tuple[int, ...]], child: list[tuple[int, ...]]
) -> None:
    plan = executed(replace(PROCESS, exec_cpu_affinity=affinity), hierarchies=V2)
    assert [step.processors for step in of_type(plan.parent, s.Affinity)] == parent
    assert [step.processors for step in of_type(plan.child, s.Affinity)] == child
    if affinity and affinity.initial:
        assert_order(plan.parent, s.Affinity, s.Open)


def test_what_is_written_by_the_hosts_proc_is_written_first() -> None:
    process = replace(PROCESS, apparmor_profile="p", selinux_label="l", oom_score_adj=7)
    parent = executed(process, "mount user").parent
    for path in ("/proc/self/attr/apparmor/exec", "/proc/self/attr/exec", "/proc/self/oom_score_adj"):
        here: Any = lambda step, path=path: getattr(step, "path", "") == path  # noqa: E731
        assert_order(parent, here, s.SetNonDumpable, s.JoinNamespace)
    zero = executed(replace(PROCESS, oom_score_adj=0)).parent
    assert s.Write("/proc/self/oom_score_adj", ("0",)) in zero, "0 is a wish as well"


@pytest.mark.parametrize(("kinds", "keep"), [("mount user", False), ("mount user", True), ("mount", False)])
def test_it_is_root_in_the_user_namespace_before_anything_of_the_containers_sees_it(kinds: str, keep: bool) -> None:
    plan = executed(replace(PROCESS, user=User(9, 9)), kinds, keep_groups=keep)
    first = [step for step in of_type(plan.child, s.SetUser)][:-1]
    assert first == ([s.SetUser(0, 0, keep_groups=keep)] if "user" in kinds else [])
    assert_order(plan.child, *first, s.SetNonDumpable, s.Chdir("/"), HOLD_ROOT, s.Exec)
    assert s.SetNonDumpable() in plan.parent, "nor who is still to clone it"


@pytest.mark.parametrize("size", [None, ConsoleSize(24, 80)])
def test_its_streams(size: ConsoleSize | None) -> None:
    process = replace(PROCESS, user=User(9), console_size=size)
    rows, columns = (24, 80) if size else (0, 0)
    with_terminal = executed(replace(process, terminal=True)).child
    assert of_type(with_terminal, s.Terminal) == [s.Terminal(9, rows, columns, console=False)]
    assert not positions(with_terminal, lambda step: isinstance(step, s.Setsid | s.ChownStdio))
    assert_order(executed(process).child, s.Setsid(tolerate=(EPERM,)), s.ChownStdio(9), s.Exec)


def test_it_has_the_containers_filter_and_policy_and_its_own_directory_and_waits_for_nobody() -> None:
    linux = Linux(seccomp=Seccomp("SCMP_ACT_ALLOW"), memory_policy=MemoryPolicy("MPOL_LOCAL"))
    plan = executed(replace(PROCESS, cwd="/w"), linux=linux, preserve_fds=3, grantable=0)
    made = s.Mkdir("w", tolerate=of_type(plan.child, s.Mkdir)[0].tolerate, inside=True)
    assert_order(plan.child, HOLD_ROOT, made, s.MemoryPolicy(4), s.CloseOnExec(6), s.SeccompFilter, s.Exec)
    assert not positions(plan.steps(), lambda step: isinstance(step, s.Sync | s.WaitStart))
    assert s.BoundingSet(0) in plan.child
