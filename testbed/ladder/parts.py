"""Which part of a rung's start each step of its plan belongs to: a namespace, a mount, a cgroup, a filter. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from runtime.plan import constants as k
from runtime.plan.steps import NoteTimes, Step, Unshare, purposes

# The kinds of namespaces by their flag of clone3(2) and unshare(2), as namespaces(7) names them.
NAMESPACES: Mapping[str, int] = MappingProxyType(
    {
        "mount": k.CLONE_NEWNS,
        "uts": k.CLONE_NEWUTS,
        "ipc": k.CLONE_NEWIPC,
        "pid": k.CLONE_NEWPID,
        "user": k.CLONE_NEWUSER,
        "network": k.CLONE_NEWNET,
        "cgroup": k.CLONE_NEWCGROUP,
        "time": k.CLONE_NEWTIME,
    }
)
LAUNCHER, NAMESPACE, CGROUP, MOUNTS, NETWORK = "launcher", "namespaces", "cgroup", "mounts and masks", "network"
USER, FILTER, EXEC = "user and limits", "filter", "exec"
_OF_PURPOSE: Mapping[str, str] = MappingProxyType(
    {
        purposes.CLONE: NAMESPACE,
        purposes.NAMESPACE: NAMESPACE,
        purposes.ACCOUNT: CGROUP,
        purposes.JOIN: CGROUP,
        purposes.NETWORK: NETWORK,
        purposes.PRIVATE: MOUNTS,
        purposes.PROPAGATION: MOUNTS,
        purposes.ROOT: MOUNTS,
        purposes.KERNEL: MOUNTS,
        purposes.DEV: MOUNTS,
        purposes.PIVOT: MOUNTS,
        purposes.CHROOT: MOUNTS,
        purposes.IDENTITY: MOUNTS,
        purposes.PROTECT: MOUNTS,
        purposes.SECCOMP: FILTER,
        purposes.LANDLOCK: FILTER,
        purposes.EXEC: EXEC,
    }
)


def find_part(step: Step | None) -> str:
    """Return the part that a step belongs to; None stands for the clone. What it takes to start the launcher itself is
    in the first step of a plan that is timed."""
    if isinstance(step, NoteTimes):
        return LAUNCHER
    if step is None or isinstance(step, Unshare):
        return NAMESPACE
    return _OF_PURPOSE.get(step.reason(), USER)


def name_namespaces(flags: int) -> str:
    """Return the namespaces that flags of a clone ask for, in words."""
    return ", ".join(name for name, flag in NAMESPACES.items() if flags & flag) or "none"


def describe_step(step: Step | None, clone_flags: int) -> str:
    """Return a step as the page names it."""
    if step is None:
        return f"clone3 with new namespaces: {name_namespaces(clone_flags)}"
    if isinstance(step, Unshare):
        return f"unshare: {name_namespaces(step.flags)}"
    return step.describe()
