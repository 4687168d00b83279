"""Run the hooks that an OCI configuration names for points of a container's lifecycle (runtime-spec, POSIX hooks).

A hook gets the container's state as JSON on its standard input and is killed after its timeout. The launcher runs it
from a plan, in the host's namespaces or in the container's.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from runtime.config.types import Config
from runtime.errors import TestbedError, UsageError, WorkloadError
from runtime.kernel_files import parse_fields
from runtime.launcher import StepError
from runtime.oci.caller import Caller, CallerGone
from runtime.plan import steps as s
from runtime.plan.execution import join_container

# A failure of one of these hooks does not fail the operation (runtime-spec 1.3, Lifecycle, step 13).
_WARN_ONLY = ("poststop",)
_TAIL_CHARACTERS = 4096
_TAIL_LINES = 10


class Hook(Protocol):
    """A hook as configured: an absolute ``path``, ``args`` (the whole argv; if empty, argv is just the path), ``env``
    as ``NAME=value`` entries or None, and ``timeout`` in seconds or None."""

    @property
    def path(self) -> str: ...
    @property
    def args(self) -> Sequence[str]: ...
    @property
    def env(self) -> Sequence[str] | None: ...
    @property
    def timeout(self) -> float | None: ...


class Surroundings(Struct, frozen=True):
    """Where hooks run: their working ``directory`` (empty: the client's), the ``environment`` of hooks that have none
    of their own (None: the client's), the steps that ``join`` namespaces before the process is cloned, and the steps
    with which that process changes its user (``become``)."""

    directory: str = ""
    environment: tuple[str, ...] | None = None
    join: tuple[s.Step, ...] = ()
    become: tuple[s.Step, ...] = ()


OURS = Surroundings()


def surroundings_inside(
    pid: int, config: Config, directory: str, environment: tuple[str, ...] | None, *, keep_groups: bool
) -> Surroundings:
    """Return surroundings in the namespaces of a container's first process ``pid``, as root of its user namespace."""
    own = {namespace.type for namespace in config.linux.namespaces}
    become = (s.SetUser(0, 0, keep_groups=keep_groups),) if "user" in own else ()
    return Surroundings(directory, environment, (s.SetNonDumpable(), *join_container(pid, own)), become)


def pid_inside(pid: int) -> int:
    """Return a process's pid in its own pid namespace, which is the one that hooks in the container are told
    (runtime.md, "State"). Raises ProcessLookupError, FileNotFoundError."""
    return int(parse_fields(Path(f"/proc/{pid}/status").read_text())["NSpid"].split()[-1])


def run_hooks(
    kind: str,
    hooks: Sequence[Hook],
    state: Mapping[str, object],
    caller: Caller,
    surroundings: Surroundings = OURS,
    *,
    warn: Callable[[str], None] | None = None,
) -> None:
    """Run the hooks of one kind in order; ``state`` is what ``runtime.oci.state.oci_state`` returns.

    The first failure is raised and no further hook is run, except for ``poststop``: every poststop hook is run, and
    each failure is passed to ``warn``. Raises UsageError, WorkloadError.
    """
    for index, hook in enumerate(hooks):
        try:
            run_hook(kind, index, hook, state, caller, surroundings)
        except CallerGone:
            raise
        except TestbedError as error:
            if kind not in _WARN_ONLY:
                raise
            if warn:
                warn(str(error))


def run_hook(
    kind: str, index: int, hook: Hook, state: Mapping[str, object], caller: Caller, surroundings: Surroundings = OURS
) -> None:
    """Run one hook and wait for it.

    Raises UsageError for a malformed hook and WorkloadError when it cannot be started, fails, or does not end in time.
    The process group of a hook that fails or does not end in time is killed.
    """
    name = f"{kind} hook {index} ({hook.path})"
    if not os.path.isabs(hook.path):
        raise UsageError(f"{name}: the path is not absolute")
    if hook.timeout is not None and hook.timeout <= 0:
        raise UsageError(f"{name}: a timeout of {hook.timeout:g} s", "give a number above 0, or none")
    plan = _plan(name, hook, surroundings, caller)
    try:
        done = caller.run(plan, stdin=json.dumps(state).encode(), timeout_s=hook.timeout, together=True)
    except StepError as error:
        what = os.strerror(error.errno) if isinstance(error.failed, s.Exec) else error.message
        raise WorkloadError(f"{name}: start it: {what}") from error
    if not done.in_time:
        raise WorkloadError(f"{name}: not done after {hook.timeout:g} s, killed{_tail(done.output)}")
    if done.status != 0:
        raise WorkloadError(f"{name}: {_how_it_ended(done.status)}{_tail(done.output)}")


def _plan(name: str, hook: Hook, surroundings: Surroundings, caller: Caller) -> s.Plan:
    environment = surroundings.environment if hook.env is None else _environment(name, hook.env)
    if environment is None:
        environment = tuple(f"{name}={value}" for name, value in caller.environment.items())
    child: tuple[s.Step, ...] = (
        *surroundings.become,
        s.Setsid(),
        s.Umask(caller.request.umask),
        *((s.Chdir(surroundings.directory),) if surroundings.directory else ()),
        s.CloseOnExec(3),
        s.Exec(tuple(hook.args) or (hook.path,), environment, program=hook.path),
    )
    return s.Plan(child, surroundings.join)


def _environment(name: str, env: Sequence[str]) -> tuple[str, ...]:
    """Check a hook's environment; of several entries with the same name the last counts, as in a process's."""
    entries: dict[str, str] = {}
    for entry in env:
        key, equals, _ = entry.partition("=")
        if not key or not equals:
            raise UsageError(f"{name}: the environment has {entry!r}", "write NAME=value")
        entries[key] = entry
    return tuple(entries.values())


def _how_it_ended(status: int) -> str:
    if status <= 128:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(status - 128).name}"
    except ValueError:  # a real-time signal without a name
        return f"killed by signal {status - 128}"


def _tail(output: str) -> str:
    """Return the last lines that a hook wrote, each on a line of its own; return nothing if it wrote nothing."""
    text = output[-_TAIL_CHARACTERS:].strip()
    return "".join(f"\n  | {line}" for line in text.splitlines()[-_TAIL_LINES:])
