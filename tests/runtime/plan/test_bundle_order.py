"""What must come before what in the plan of a container, and why."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from runtime.config.process import Capabilities, Process, Rlimit, User
from runtime.config.seccomp import Seccomp, SyscallRule
from runtime.config.types import Config, Hooks, Linux, MemoryPolicy, Mount, Personality
from runtime.plan import constants as k
from runtime.plan import steps as s
from runtime.plan.bundle import CREATED, RECORDED, STARTING
from runtime.plan.root import HOLD_ROOT
from tests.runtime.plan.bundles import (
    HOOK,
    MAPPED,
    PROCESS,
    ROOTFS,
    Matcher,
    assert_order,
    config,
    made,
    planned,
    sync,
)

FULL_PROCESS = replace(
    PROCESS,
    cwd="/work",
    terminal=True,
    user=User(1000, 1000),
    apparmor_profile="profile",
    selinux_label="label",
    rlimits=(Rlimit("RLIMIT_CPU", 1, 1),),
    capabilities=Capabilities(("CAP_KILL",)),
)
FULL_LINUX = replace(
    MAPPED,
    sysctl={"net.ipv4.ip_forward": "1"},
    rootfs_propagation="shared",
    readonly_paths=("/proc/sys",),
    masked_paths=("/proc/kcore",),
    personality=Personality("LINUX32"),
    memory_policy=MemoryPolicy("MPOL_BIND", "0"),
    seccomp=Seccomp("SCMP_ACT_ALLOW", syscalls=(SyscallRule(("reboot",), "SCMP_ACT_KILL"),)),
)
FULL_MOUNTS = (
    Mount("/proc", "proc", "proc"),
    Mount("/dev", "tmpfs", "tmpfs", ("ro", "nosuid")),
    Mount("/dev/pts", "devpts", "devpts", ("newinstance",)),
    Mount("/data", "bind", "/srv/data", ("rbind",)),
    Mount("/sys/fs/cgroup", "cgroup", "cgroup"),
)


def full(kinds: str = "", process: Process = FULL_PROCESS, linux: Linux = FULL_LINUX) -> Config:
    """A configuration with something of everything."""
    whole = config(
        f"pid network ipc uts mount cgroup {kinds}",
        process,
        linux,
        hostname="host",
        domainname="domain",
        mounts=FULL_MOUNTS,
        hooks=Hooks(create_runtime=(HOOK,), start_container=(HOOK,)),
    )
    return replace(whole, root=replace(whole.root, readonly=True))


def is_label(step: s.Step) -> bool:
    return isinstance(step, s.Write) and step.path.startswith("/proc/self/attr/")


def is_node(step: s.Step) -> bool:
    return isinstance(step, s.Mknod) or (isinstance(step, s.Bind) and step.target in ("dev/null", "dev/tty"))


def is_inside(step: s.Step) -> bool:
    return isinstance(step, s.Bind | s.MaskPath | s.ReadonlyPath) or bool(getattr(step, "inside", False))


def mounted(*targets: str) -> Matcher:
    return lambda step: isinstance(step, s.Mount | s.Bind) and step.target in targets


SYSCTL = s.Write("/proc/sys/net/ipv4/ip_forward", ("1",))
READONLY_ROOT, READONLY_DEV = (s.MountAttributes(path, k.MOUNT_ATTR_RDONLY) for path in ("/", "/dev"))
WORKLOADS_USER = s.SetUser(1000, 1000)
ORDERS: dict[str, tuple[Matcher, ...]] = {
    "a label is written through the host's /proc: another may swallow it": (is_label, s.Mount),
    "so are kernel parameters, and before they are write-protected": (SYSCTL, mounted("proc"), s.ReadonlyPath),
    "the host waits for the process before it is in anything": (sync(RECORDED), s.Mount),
    "nothing of the container's looks into it": (s.SetNonDumpable, s.Mount),
    "the tree is a slave before anything is mounted in it, and the root is held before its inside": (
        s.Mount("", "/", "", k.MS_REC | k.MS_SLAVE),
        s.Mount(ROOTFS, ROOTFS, "", k.MS_BIND | k.MS_REC),
        s.Chdir(ROOTFS),
        HOLD_ROOT,
        is_inside,
    ),
    "nodes and links are made in what is mounted on /dev": (mounted("dev"), is_node, s.Symlink, READONLY_DEV),
    "a terminal is one of the container's own devpts": (mounted("dev/pts"), s.Terminal),
    "files are hidden behind the container's null device": (is_node, s.MaskPath),
    "a write-protected directory would show what is hidden in it": (s.ReadonlyPath, s.MaskPath),
    "cgroups are shown as the cgroup namespace has them": (
        s.WriteDescriptor,
        s.Unshare(k.CLONE_NEWCGROUP),
        mounted("sys/fs/cgroup", "sys/fs/cgroup/memory"),
    ),
    "hooks of create see the finished root before it is entered": (s.MaskPath, sync(CREATED), s.PivotRoot),
    "the host's root goes at once": (s.PivotRoot, s.Unmount(".", k.MNT_DETACH), s.Chdir("/")),
    "pivot_root(2) refuses a shared mount": (s.PivotRoot, s.Mount("", "/", "", k.MS_SHARED)),
    "the working directory is made while the root can be written": (made("work"), READONLY_ROOT),
    "and entered once it is there": (made("work"), s.Chdir("/work", confined=True)),
    "a missing command is an error of create, not of start": (s.CheckExecutable, s.WaitStart),
    "hooks of start run inside, when it is started": (READONLY_ROOT, s.WaitStart, sync(STARTING), s.Exec),
    "dropping the bounding set takes CAP_SETPCAP, which goes with the user": (s.BoundingSet, WORKLOADS_USER),
    "nothing that needs another system call comes after the filter": (
        s.NoNewPrivileges,
        s.CheckExecutable,
        sync(STARTING),
        s.SeccompFilter,
        s.Exec,
    ),
    "the process's own nature is set before its filter": (s.Personality, s.SeccompFilter),
    "memory policies are system calls, too": (s.MemoryPolicy, s.SeccompFilter),
}


@pytest.mark.parametrize("kinds", ["", "user"])
@pytest.mark.parametrize("why", ORDERS)
def test_the_order_of_steps(why: str, kinds: str) -> None:
    assert_order(planned(full(kinds), cgroup="c").child, *ORDERS[why])


IN_USER_NAMESPACE: dict[str, tuple[Matcher, ...]] = {
    "it is root there once its maps are written": (sync(RECORDED), s.SetUser(0, 0)),
    "labels are written while its files are its own": (is_label, s.SetNonDumpable),
    "a change of user decides anew who may look into it": (s.SetUser(0, 0), s.SetNonDumpable),
    "the keyring is that of the container's root": (s.SetUser(0, 0), s.SessionKeyring),
    "cgroups are joined with the rights of the launcher": (s.WriteDescriptor, s.SetUser(0, 0)),
}


@pytest.mark.parametrize("why", IN_USER_NAMESPACE)
def test_the_order_of_steps_in_a_user_namespace(why: str) -> None:
    assert_order(planned(full("user"), cgroup="c", keyring="_ses.a").child, *IN_USER_NAMESPACE[why])


def test_the_filter_is_the_last_step_before_the_command() -> None:
    kinds = [type(step) for step in planned(full()).child]
    assert kinds[-2:] == [s.SeccompFilter, s.Exec]


def test_who_may_gain_privileges_loads_the_filter_while_it_has_them() -> None:
    """Without no_new_privs that takes CAP_SYS_ADMIN."""
    plan = planned(full(process=replace(FULL_PROCESS, no_new_privileges=False)))
    assert_order(
        plan.child, s.CheckExecutable, s.WaitStart, sync(STARTING), s.SeccompFilter, s.BoundingSet, WORKLOADS_USER
    )
    assert not any(isinstance(step, s.NoNewPrivileges) for step in plan.child)


def test_what_the_launcher_makes_is_made_before_it_leaves_the_hosts_namespaces() -> None:
    """Devices lie in a mount namespace of its own, and what is copied of the host's mounts is taken in that one."""
    mapped = replace(FULL_MOUNTS[3], options=("rbind", "idmap"))
    kinds = "pid network=/ns/net mount cgroup user"
    made_of = config(kinds, linux=MAPPED, mounts=(*FULL_MOUNTS[:3], mapped))
    parent = planned(made_of, cgroup="c").parent
    data: Any = lambda step: getattr(step, "source", "") == "/srv/data"  # noqa: E731
    assert_order(parent, s.NewUserNamespace, s.Unshare(k.CLONE_NEWNS), s.Mknod, data, s.JoinNamespace)
    assert_order(parent, s.Mknod, s.Unmount, data, s.Affinity)


def test_the_maps_of_ids_are_made_before_they_are_used() -> None:
    mapped = replace(FULL_MOUNTS[3], options=("rbind", "idmap"))
    plan = planned(config("mount user", linux=MAPPED, mounts=(mapped,)), rootless=True)
    (made_map,) = (step for step in plan.parent if isinstance(step, s.NewUserNamespace))
    (bind,) = (step for step in plan.child if isinstance(step, s.Bind) and step.target == "data")
    assert bind.userns == f"/proc/self/fd/{made_map.fd}"
