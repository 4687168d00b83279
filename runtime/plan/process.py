"""From a prepared root to the workload's first process: the last steps on both platforms."""

from __future__ import annotations

import resource
from errno import EPERM
from functools import lru_cache

from runtime.errors import UsageError
from runtime.plan.constants import CAPABILITIES
from runtime.plan.steps import (
    BoundingSet,
    Capabilities,
    Chdir,
    Exec,
    NoNewPrivileges,
    SetRlimit,
    Setsid,
    SetUser,
    Step,
    Umask,
)
from runtime.spec import DEFAULT_PATH, Process, Rlimit


def capability_mask(names: tuple[str, ...]) -> int:
    """The bit mask of capabilities given by name. Raises UsageError for a name the kernel does not have."""
    unknown = sorted(set(names) - set(CAPABILITIES))
    if unknown:
        raise UsageError(f"unknown capabilities: {', '.join(unknown)}")
    return sum(1 << CAPABILITIES.index(name) for name in set(names))


def _rlimit(limit: Rlimit) -> SetRlimit:
    number = getattr(resource, limit.type, None)
    if not isinstance(number, int):
        raise UsageError(f"unknown resource limit {limit.type}")
    return SetRlimit(number, limit.soft, limit.hard)


def search_path(env: tuple[str, ...]) -> str:
    """Where a command without a slash is looked for: the last PATH of ``env``, or the default."""
    paths = [value for name, _, value in (entry.partition("=") for entry in env) if name == "PATH"]
    return paths[-1] if paths else DEFAULT_PATH


@lru_cache(maxsize=64)
def process_steps(process: Process) -> tuple[Step, ...]:
    """Session, limits, directory, privileges, user.

    A user other than root ends with no permitted capability: the kernel clears them with the change of
    user (capabilities(7)), and no_new_privs keeps set-user-ID programs from bringing them back.
    """
    mask = capability_mask(process.capabilities)
    user = process.user
    return (
        Setsid(tolerate=(EPERM,)),
        *(_rlimit(limit) for limit in process.rlimits),
        Chdir(process.cwd),
        BoundingSet(mask),
        SetUser(user.uid, user.gid, user.groups),
        *((Capabilities(mask, mask),) if user.uid == 0 else ()),
        Umask(user.umask),
        *((NoNewPrivileges(),) if process.no_new_privileges else ()),
    )


def exec_step(process: Process) -> Exec:
    """The workload's execve. Raises UsageError for an empty command."""
    if not process.args or not process.args[0]:
        raise UsageError("no command: neither the image nor the caller names one")
    return Exec(process.args, process.env, search_path(process.env))
