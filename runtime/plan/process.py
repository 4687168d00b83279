"""Turn parts of a configuration's process into steps: its credentials, limits, labels, environment and home."""

from __future__ import annotations

import os
from collections.abc import Iterable
from errno import ENOENT

from runtime.config.default import DEFAULT_PATH
from runtime.config.process import Capabilities as CapabilitySets
from runtime.config.process import Process, Rlimit
from runtime.errors import UsageError
from runtime.plan.constants import ALL_CAPABILITIES, CAPABILITIES, RLIMITS
from runtime.plan.steps import (
    Ambient,
    BoundingSet,
    Capabilities,
    FindHome,
    IOPriority,
    KeepCapabilities,
    SetRlimit,
    SetScheduler,
    SetUser,
    Step,
    Umask,
    Write,
)


def _rlimit(limit: Rlimit) -> SetRlimit:
    if limit.type not in RLIMITS:
        raise UsageError(f"unknown resource limit {limit.type!r}", f"one of {', '.join(RLIMITS)}")
    return SetRlimit(RLIMITS.index(limit.type), limit.soft, limit.hard)


def grantable_mask(names: Iterable[str], grantable: int) -> int:
    """Return the bit mask of those named capabilities that are in ``grantable``."""
    return sum(1 << CAPABILITIES.index(name) for name in {*names} & {*CAPABILITIES}) & grantable


def environment(env: tuple[str, ...]) -> tuple[str, ...]:
    """Keep one ``NAME=value`` entry for each name: the last one, in the place of the first, which getenv(3) takes."""
    values = {entry.partition("=")[0]: entry for entry in env}
    return env if len(values) == len(env) else tuple(values.values())


def search_path(env: tuple[str, ...]) -> str:
    """Return where a command without a slash is looked for: the last PATH of ``env``, or the default."""
    paths = [value for name, _, value in (entry.partition("=") for entry in env) if name == "PATH"]
    return paths[-1] if paths else DEFAULT_PATH


def home_steps(process: Process) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """Return the steps that find a process's HOME, and its environment. A process with no HOME, or an empty one, gets
    the directory that the container's /etc/passwd names, or else / (as with runc and crun)."""
    given = [entry for entry in process.env if entry.startswith("HOME=")]
    if given and given[-1] != "HOME=":
        return (), process.env
    return (FindHome(process.user.uid),), (*(entry for entry in process.env if entry not in given), "HOME=/")


_POLICIES = {"SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_IDLE": 5, "SCHED_DEADLINE": 6}
_POLICY_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 1,
    "SCHED_FLAG_RECLAIM": 2,
    "SCHED_FLAG_DL_OVERRUN": 4,
    "SCHED_FLAG_KEEP_POLICY": 8,
    "SCHED_FLAG_KEEP_PARAMS": 16,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 32,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 64,
}
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}


def _number(names: dict[str, int], name: str, place: str) -> int:
    if name not in names:
        raise UsageError(f"config.json: process.{place}: {name!r}", f"one of {', '.join(names)}")
    return names[name]


def credential_steps(process: Process, *, keep_groups: bool, grantable: int = ALL_CAPABILITIES) -> tuple[Step, ...]:
    """Set an OCI process's limits, scheduling and user, and its five capability sets as far as they are ``grantable``.
    Raises UsageError for a limit or a policy that the kernel does not have.
    """
    user, sets = process.user, process.capabilities or CapabilitySets()
    steps: list[Step] = [_rlimit(limit) for limit in process.rlimits]
    if scheduler := process.scheduler:
        flags = sum(_number(_POLICY_FLAGS, name, "scheduler.flags") for name in set(scheduler.flags))
        policy = _number(_POLICIES, scheduler.policy, "scheduler.policy")
        times = (scheduler.runtime, scheduler.deadline, scheduler.period)
        steps.append(SetScheduler(policy, flags, scheduler.nice, scheduler.priority, *times))
    if process.io_priority:
        level = _number(_IO_CLASSES, process.io_priority.class_, "ioPriority.class")
        steps.append(IOPriority(level << 13 | process.io_priority.priority))
    steps += [
        BoundingSet(grantable_mask(sets.bounding, grantable)),
        KeepCapabilities(),
        SetUser(user.uid, user.gid, user.additional_gids, keep_groups),
        Capabilities(
            *(grantable_mask(names, grantable) for names in (sets.effective, sets.permitted, sets.inheritable))
        ),
        # The kernel keeps ambient within permitted and inheritable (capabilities(7)); engines list more than that.
        Ambient(grantable_mask({*sets.ambient} & {*sets.permitted} & {*sets.inheritable}, grantable)),
        Umask(0o022 if user.umask is None else user.umask),
    ]
    return tuple(steps)


# Each security module takes the label for the next execve from a file of its own (Documentation/security/lsm.rst).
# The first is AppArmor's own, whichever other modules there are. The label is kept until that execve, across forks.
LABELS = (_APPARMOR, _SELINUX) = ("/proc/self/attr/apparmor/exec", "/proc/self/attr/exec")


def label_steps(process: Process) -> tuple[Step, ...]:
    """Set the label under which the process is to be executed. The steps must be performed while /proc is the host's:
    a /proc that the container brings may swallow what is written (CVE-2019-16884)."""
    steps: list[Step] = []
    if process.apparmor_profile:
        steps.append(Write(_APPARMOR, (f"exec {process.apparmor_profile}",)))
    if process.selinux_label:
        steps.append(Write(_SELINUX, (process.selinux_label,)))
    return tuple(steps)


def label_refused(process: Process, error: int) -> UsageError:
    """Return an error that explains why the kernel did not accept a process's label."""
    name, label = "apparmorProfile", process.apparmor_profile
    if not label:
        return UsageError(f"process.selinuxLabel: {process.selinux_label!r}: {os.strerror(error)}")
    if error == ENOENT:
        hint = "load it with apparmor_parser; /sys/kernel/security/apparmor/profiles lists those that are loaded"
        return UsageError(f"process.{name}: {label!r}: the kernel has no profile of this name", hint)
    return UsageError(f"process.{name}: {label!r}: {os.strerror(error)}")
