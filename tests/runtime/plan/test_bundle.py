"""What is decided about a container: its namespaces, its limits, what it is given, and who is waited for."""

from __future__ import annotations

import random
from errno import ENOSYS
from typing import Any

import pytest
from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.config.process import Capabilities, ConsoleSize, Rlimit, Scheduler, User
from runtime.config.resources import DeviceRule, Memory, Pids, Resources
from runtime.config.types import Hooks, Linux, MemoryPolicy, Mount, Personality, TimeOffset
from runtime.errors import UsageError
from runtime.plan import constants as k
from runtime.plan import steps as s
from runtime.plan.bundle import CREATED, RECORDED, STARTING
from runtime.plan.execution import NAMESPACE_FLAGS
from tests.runtime.plan.bundles import (
    HOOK,
    HOSTS,
    MAPPED,
    PROCESS,
    V1,
    V2,
    assert_order,
    config,
    of_type,
    planned,
    positions,
)

IMMEDIATELY: dict[str, Any] = {"start_immediately": True}


def is_written(path: str, data: str, steps: tuple[s.Step, ...]) -> bool:
    return s.Write(path, (data,)) in steps


# --- namespaces


@pytest.mark.parametrize("cgroup", ["", "c"])
@pytest.mark.parametrize("kind", NAMESPACE_FLAGS)
def test_a_new_namespace_is_cloned_or_unshared_once(kind: str, cgroup: str) -> None:
    """A time namespace takes its offsets before anybody is in it; a cgroup namespace's root is the cgroup that the
    process is in when it makes it."""
    plan, flag = planned(config(kind, linux=MAPPED), cgroup=cgroup), NAMESPACE_FLAGS[kind]
    unshared = [step.flags for step in of_type(plan.parent, s.Unshare)]
    inside = [step.flags for step in of_type(plan.child, s.Unshare)]
    expected: tuple[int, list[int], list[int]] = {"time": (0, [flag], [])}.get(kind, (flag, [], []))
    if kind == "cgroup" and cgroup:
        expected = (0, [], [flag])
    if kind == "user":  # and one of the launcher's for the devices, which it makes there
        expected = (flag, [k.CLONE_NEWNS], [])
    assert (plan.clone_flags, unshared, inside) == expected
    assert of_type(plan.steps(), s.JoinNamespace) == []


@pytest.mark.parametrize("kind", NAMESPACE_FLAGS)
def test_a_namespace_with_a_path_is_joined_by_the_launcher(kind: str) -> None:
    plan = planned(config(f"{kind}=/ns/it"), cgroup="c", mapped=True)
    assert of_type(plan.parent, s.JoinNamespace) == [s.JoinNamespace("/ns/it", NAMESPACE_FLAGS[kind])]
    assert plan.clone_flags == 0 and of_type(plan.steps(), s.Unshare) == []
    assert of_type(plan.child, s.JoinNamespace) == []


def test_any_mixture_of_namespaces_has_each_once() -> None:
    chance = random.Random(15)
    for _ in range(150):
        given = {kind: chance.choice(("", kind, f"{kind}=/ns/{kind}")) for kind in NAMESPACE_FLAGS}
        cgroup = chance.choice(("", "c"))
        plan = planned(config(" ".join(given.values()), linux=MAPPED), cgroup=cgroup, mapped=True)
        unshared = sum(step.flags for step in of_type(plan.steps(), s.Unshare))
        joined = {step.path: step.flag for step in of_type(plan.steps(), s.JoinNamespace)}
        new = [NAMESPACE_FLAGS[kind] for kind, word in given.items() if word == kind]
        assert plan.clone_flags + unshared == sum(new), given
        assert joined == {f"/ns/{kind}": NAMESPACE_FLAGS[kind] for kind, word in given.items() if "=" in word}, given


def test_the_owner_of_the_others_is_joined_first_and_the_mount_namespace_last() -> None:
    """What is done in the others takes the rights that the user namespace gives; /proc is another's with the mounts."""
    kinds = " ".join(f"{kind}=/ns/{kind}" for kind in ("mount", "pid", "user", "network"))
    limited = replace(MAPPED, time_offsets={"monotonic": TimeOffset(1)})
    plan = planned(config(f"{kinds} time", replace(PROCESS, oom_score_adj=5), limited), mapped=True)
    joined = [step.path for step in of_type(plan.parent, s.JoinNamespace)]
    assert joined[0] == "/ns/user" and joined[-1] == "/ns/mount" and len(joined) == 4
    assert plan.parent[-1] == s.JoinNamespace("/ns/mount", k.CLONE_NEWNS)


def test_time_offsets_are_written_between_the_namespace_and_its_first_process() -> None:
    offsets = {"monotonic": TimeOffset(7, 5), "boottime": TimeOffset(-3)}
    plan = planned(config("mount time", linux=Linux(time_offsets=offsets)))
    written = s.Write("/proc/self/timens_offsets", ("monotonic 7 5", "boottime -3 0"))
    assert_order(plan.parent, s.Unshare(k.CLONE_NEWTIME), written)
    assert not positions(planned(config("mount time")).parent, s.Write), "nothing to write"


# --- cgroups and limits


@pytest.mark.parametrize("found", HOSTS.values(), ids=HOSTS)
def test_limits_are_written_before_anybody_is_in_the_cgroup(found: Hierarchies) -> None:
    resources = Resources(memory=Memory(limit=1 << 20), pids=Pids(9))
    plan = planned(config("mount cgroup", linux=Linux(resources=resources)), found, cgroup="c/d")
    directories = [f"{mount}/c/d" for mount in found.used]
    limit = "memory.limit_in_bytes" if found.v1 else "memory.max"
    memory = f"{found.mount_of('memory')}/c/d/{limit}"
    assert is_written(memory, str(1 << 20), plan.parent)

    def joins(step: s.Step) -> bool:
        if isinstance(step, s.Open | s.Write):
            return any(step.path in (f"{path}/tasks", f"{path}/cgroup.procs") for path in directories)
        return False

    assert_order(plan.parent, lambda step: isinstance(step, s.Write) and not joins(step), joins, s.Affinity)
    assert len(positions(plan.parent, joins)) == len(directories)
    assert_order(plan.child, s.WriteDescriptor, s.Unshare(k.CLONE_NEWCGROUP), s.Sync)


def test_the_processors_of_who_starts_it_are_not_the_containers() -> None:
    """The step comes after the cgroup, whose cpuset bounds it; without a cgroup it keeps those of its caller."""
    assert of_type(planned(config(), cgroup="c").parent, s.Affinity) == [s.Affinity()]
    assert of_type(planned(config()).steps(), s.Affinity) == []


def test_without_a_cgroup_nothing_of_cgroups_is_touched() -> None:
    resources = Resources(memory=Memory(limit=1 << 20), devices=(DeviceRule(False),))
    plan = planned(config("mount cgroup", linux=Linux(resources=resources)))
    assert not positions(plan.steps(), lambda step: "/cg" in str(step))
    assert plan.clone_flags & k.CLONE_NEWCGROUP


@pytest.mark.parametrize(
    ("limit", "scope", "written"),
    [(1, "", True), (2, "", True), (2, "a.scope", True), (1, "a.scope", False), (-1, "a.scope", True)],
)
def test_a_scope_gets_a_limit_of_one_task_later(limit: int, scope: str, written: bool) -> None:
    """The launcher is in it as well, and has to clone."""
    resources = Resources(memory=Memory(limit=1 << 20), pids=Pids(limit))
    plan = planned(config(linux=Linux(resources=resources)), cgroup="c", scope=scope)
    value = str(limit) if limit > 0 else "max"
    assert is_written("/cg/pids/c/pids.max", value, plan.parent) == written
    assert is_written("/cg/memory/c/memory.limit_in_bytes", str(1 << 20), plan.parent), "the others stay"


@pytest.mark.parametrize(
    ("choices", "confined"), [({}, True), ({"rootless": True}, False), ({"mapped": True}, False)], ids=str
)
@pytest.mark.parametrize("found", [V1, V2], ids=["v1", "v2"])
def test_who_can_make_no_nodes_is_not_confined_to_some(
    choices: dict[str, Any], confined: bool, found: Hierarchies
) -> None:
    resources = Resources(pids=Pids(9), devices=(DeviceRule(False),))
    plan = planned(config("mount user", linux=replace(MAPPED, resources=resources)), found, cgroup="c", **choices)
    ruled = positions(plan.parent, lambda step: isinstance(step, s.CgroupProgram) or "/devices.deny" in str(step))
    assert bool(ruled) == confined
    assert positions(plan.parent, lambda step: "pids.max" in str(step)), "the other limits stay"


def test_the_oom_score_is_set_before_another_user_namespace_forbids_it() -> None:
    plan = planned(config("mount user=/ns/user", replace(PROCESS, oom_score_adj=-5)), mapped=True)
    assert_order(plan.parent, s.Write("/proc/self/oom_score_adj", ("-5",)), s.JoinNamespace)
    zero = planned(config(process=replace(PROCESS, oom_score_adj=0)))
    assert is_written("/proc/self/oom_score_adj", "0", zero.parent), "0 is a wish as well"
    assert not positions(planned(config()).parent, s.Write)


# --- the new process


@pytest.mark.parametrize(
    ("changes", "choices", "steps"),
    [
        ({"hostname": "web"}, {}, [s.SetHostname("web")]),
        ({"domainname": "lan"}, {}, [s.SetDomainname("lan")]),
        ({"linux": Linux(sysctl={"kernel.shm_rmid_forced": "1"})}, {},
         [s.Write("/proc/sys/kernel/shm_rmid_forced", ("1",))]),
        ({"linux": Linux(personality=Personality("LINUX"))}, {}, [s.Personality(0)]),
        ({"linux": Linux(personality=Personality("LINUX32"))}, {}, [s.Personality(8)]),
        ({"linux": Linux(memory_policy=MemoryPolicy("MPOL_BIND", "0-1"))}, {}, [s.MemoryPolicy(2, (0, 1))]),
        ({"linux": Linux(masked_paths=("/a", "/b"))}, {}, [s.MaskPath("/a"), s.MaskPath("/b")]),
        ({"linux": Linux(readonly_paths=("/a", "/b"))}, {}, [s.ReadonlyPath("/a"), s.ReadonlyPath("/b")]),
        ({}, {"keyring": "_ses.a"}, [s.SessionKeyring("_ses.a", tolerate=(ENOSYS,))]),
        ({"process": replace(PROCESS, apparmor_profile="p")}, {},
         [s.Write("/proc/self/attr/apparmor/exec", ("exec p",))]),
        ({"process": replace(PROCESS, selinux_label="l")}, {}, [s.Write("/proc/self/attr/exec", ("l",))]),
    ],
)  # fmt: skip
def test_what_is_asked_for_is_done_and_nothing_else(
    changes: dict[str, Any], choices: dict[str, Any], steps: list[s.Step]
) -> None:
    bare, plan = planned(config()), planned(config(**changes), **choices)
    assert [step for step in plan.steps() if step not in bare.child] == steps
    assert [step for step in plan.steps() if step not in steps] == list(bare.steps())


@pytest.mark.parametrize(("kinds", "up"), [("network", True), ("network=/ns/net", False), ("", False)])
def test_only_a_network_of_its_own_has_its_loopback_brought_up(kinds: str, up: bool) -> None:
    netlink = [step.what for step in of_type(planned(config(f"mount {kinds}")).steps(), s.Netlink)]
    assert netlink == (["bring lo up"] if up else [])


@pytest.mark.parametrize(
    ("kinds", "rootless", "annotations", "kept"),
    [
        ("mount", False, {}, None),
        ("mount user", False, {}, False),
        ("mount user=/ns/user", False, {}, False),
        ("mount user", True, {}, True),
        ("mount user", False, {"run.oci.keep_original_groups": "1"}, True),
    ],
)
def test_it_becomes_the_user_namespaces_root_with_the_groups_that_it_may_have(
    kinds: str, rootless: bool, annotations: dict[str, str], kept: bool | None
) -> None:
    process = replace(PROCESS, user=User(5, 6, additional_gids=(7,)))
    plan = planned(config(kinds, process, MAPPED, annotations=annotations), rootless=rootless)
    *first, last = of_type(plan.child, s.SetUser)
    assert first == ([] if kept is None else [s.SetUser(0, 0, keep_groups=kept)])
    assert last == s.SetUser(5, 6, (7,), bool(kept))


def test_only_what_is_ours_to_give_is_given() -> None:
    sets = Capabilities(*[("CAP_CHOWN", "CAP_KILL")] * 5)
    plan = planned(config(process=replace(PROCESS, capabilities=sets)), grantable=1)
    assert of_type(plan.child, s.Capabilities) == [s.Capabilities(1, 1, 1)]
    assert of_type(plan.child, s.BoundingSet) == [s.BoundingSet(1)]
    assert of_type(plan.child, s.Ambient) == [s.Ambient(1)]


@pytest.mark.parametrize("preserved", [0, 4])
def test_descriptors_are_closed_from_the_first_that_is_not_preserved(preserved: int) -> None:
    plan = planned(config(), preserve_fds=preserved)
    assert of_type(plan.child, s.CloseOnExec) == [s.CloseOnExec(3 + preserved)]


@pytest.mark.parametrize("kinds", ["mount", "mount user"])
@pytest.mark.parametrize("uid", [0, 33])
def test_the_standard_streams_are_the_workloads_users(uid: int, kinds: str) -> None:
    process, size = replace(PROCESS, user=User(uid)), ConsoleSize(24, 80)
    for terminal, expected in (
        (replace(process, terminal=True), [s.Terminal(uid)]),
        (replace(process, terminal=True, console_size=size), [s.Terminal(uid, 24, 80)]),
        (replace(process, console_size=size), [s.Setsid(tolerate=(1,)), s.ChownStdio(uid)]),
    ):
        child = planned(config(kinds, terminal, MAPPED)).child
        assert [step for step in child if isinstance(step, s.Terminal | s.Setsid | s.ChownStdio)] == expected


# --- who waits for whom


@pytest.mark.parametrize(
    ("hook", "points"),
    [
        ("", [RECORDED]),
        ("prestart", [RECORDED, CREATED]),
        ("create_runtime", [RECORDED, CREATED]),
        ("create_container", [RECORDED, CREATED]),
        ("start_container", [RECORDED, STARTING]),
        ("poststart", [RECORDED]),
        ("poststop", [RECORDED]),
    ],
)
def test_hooks_that_run_meanwhile_are_waited_for(hook: str, points: list[int]) -> None:
    hooks = Hooks(**{hook: (HOOK,)}) if hook else Hooks()
    plan = planned(config(hooks=hooks))
    assert [step.number for step in of_type(plan.child, s.Sync)] == points
    assert len(of_type(plan.child, s.WaitStart)) == 1


def test_a_container_that_is_started_immediately_waits_for_nobody() -> None:
    plan = planned(config(), **IMMEDIATELY)
    assert not of_type(plan.steps(), s.Sync) and not of_type(plan.steps(), s.WaitStart)
    waiting = planned(config()).child
    early = s.Sync | s.WaitStart | s.CheckExecutable  # a missing command shows when it is executed
    assert [step for step in waiting if not isinstance(step, early)] == list(plan.child)


# --- services


@pytest.mark.parametrize(
    ("choices", "variables"),
    [
        ({}, ()),
        ({"listen_fds": 2}, ("LISTEN_FDS=2", "LISTEN_PID=1")),
        ({"notify": "/state/a/notify"}, ("NOTIFY_SOCKET=/run/notify/notify.sock",)),
        (
            {"listen_fds": 1, "notify": "/n"},
            ("LISTEN_FDS=1", "LISTEN_PID=1", "NOTIFY_SOCKET=/run/notify/notify.sock"),
        ),
    ],
)
def test_a_service_is_told_its_sockets_whatever_its_configuration_says(
    choices: dict[str, Any], variables: tuple[str, ...]
) -> None:
    """The last of a name counts, and the one of the configuration is from elsewhere."""
    process = replace(PROCESS, env=("HOME=/h", "NOTIFY_SOCKET=/old", "LISTEN_FDS=99"))
    (executed,) = of_type(planned(config(process=process), **choices).child, s.Exec)
    given = {entry.partition("=")[0]: entry for entry in (*process.env, *variables)}
    assert sorted(executed.env) == sorted(given.values())


def test_the_socket_to_notify_at_is_bound_last_and_can_only_be_written_to() -> None:
    """A mount of the configuration's on /run would hide it."""
    mounts = (Mount("/run", "tmpfs", "tmpfs"),)
    plan = planned(config(mounts=mounts), notify="/state/a/notify")
    (bind,) = of_type(plan.child, s.Bind)
    tight = k.MOUNT_ATTR_RDONLY | k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_NOEXEC
    assert (bind.source, bind.target, bind.set) == ("/state/a/notify", "run/notify", tight)
    assert_order(plan.child, lambda step: isinstance(step, s.Mount) and step.target == "run", bind)


# --- errors


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"process": None}, "config.json: process: missing"),
        ({"linux": Linux(memory_policy=MemoryPolicy("MPOL_NEAR"))}, "linux.memoryPolicy.mode: 'MPOL_NEAR'"),
        ({"linux": Linux(memory_policy=MemoryPolicy("MPOL_BIND", "0", ("MPOL_F_X",)))},
         "linux.memoryPolicy.flags: 'MPOL_F_X'"),
        ({"linux": Linux(memory_policy=MemoryPolicy("MPOL_BIND", "1-"))}, "linux.memoryPolicy.nodes: '1-'"),
        ({"process": replace(PROCESS, scheduler=Scheduler("SCHED_X"))}, "process.scheduler.policy: 'SCHED_X'"),
        ({"process": replace(PROCESS, rlimits=(Rlimit("RLIMIT_X", 1, 1),))}, "limit 'RLIMIT_X'"),
        ({"linux": Linux(resources=Resources(unified={"memory.max": "1"}))}, "linux.resources.unified"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        planned(config(**changes), cgroup="c")
