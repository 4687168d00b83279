"""Hooks: the programs that an OCI configuration wants run at points of a container's life (runtime-spec, POSIX hooks).

A hook gets the container's state as JSON on its standard input, and is given up on after its timeout. It is a plan of
the launcher's, in the host's namespaces or in the container's.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from runtime.config.types import Config
from runtime.errors import TestbedError, UsageError, WorkloadError
from runtime.launcher import Launch, StepError
from runtime.plan import steps as s
from runtime.plan.execution import join_container
from runtime.processes import wait_exit

# A failure of these does not fail the operation (runtime-spec 1.3, Lifecycle, step 13).
_WARN_ONLY = ("poststop",)
_TAIL_BYTES = 4096
_TAIL_LINES = 10


class Hook(Protocol):
    """A hook as configured: absolute ``path``, ``args`` (argv with its first; empty: only the path), ``env`` as
    ``NAME=value`` or None, ``timeout`` in seconds or None."""

    @property
    def path(self) -> str: ...
    @property
    def args(self) -> Sequence[str]: ...
    @property
    def env(self) -> Sequence[str] | None: ...
    @property
    def timeout(self) -> float | None: ...


class Surroundings(Struct, frozen=True):
    """Where hooks run: the working ``directory`` (empty: ours), the ``environment`` of those that have none of their
    own (None: ours), what to ``join`` before a process is made and whom to ``become`` in it."""

    directory: str = ""
    environment: tuple[str, ...] | None = None
    join: tuple[s.Step, ...] = ()
    become: tuple[s.Step, ...] = ()


OURS = Surroundings()


def surroundings_inside(
    pid: int, config: Config, directory: str, environment: tuple[str, ...] | None, *, keep_groups: bool
) -> Surroundings:
    """The namespaces that a container's first process ``pid`` is in, as their root user."""
    own = {namespace.type for namespace in config.linux.namespaces}
    become = (s.SetUser(0, 0, keep_groups=keep_groups),) if "user" in own else ()
    return Surroundings(directory, environment, (s.SetNonDumpable(), *join_container(pid, own)), become)


def pid_inside(pid: int) -> int:
    """A process's number in its own pid namespace: hooks that run in the container are told that one (runtime.md,
    "State"). Raises ProcessLookupError, FileNotFoundError."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[-1]) for line in lines if line.startswith("NSpid:"))


def run_hooks(
    kind: str,
    hooks: Sequence[Hook],
    state: Mapping[str, object],
    surroundings: Surroundings = OURS,
    *,
    warn: Callable[[str], None] | None = None,
) -> None:
    """Run the hooks of one kind in order; ``state`` is what ``runtime.state.oci_state`` returns.

    The first failure ends it with that error, except for ``poststop``: there every hook is run, and each failure is
    given to ``warn``. Raises UsageError, WorkloadError.
    """
    for index, hook in enumerate(hooks):
        try:
            run_hook(kind, index, hook, state, surroundings)
        except TestbedError as error:
            if kind not in _WARN_ONLY:
                raise
            if warn:
                warn(str(error))


def run_hook(kind: str, index: int, hook: Hook, state: Mapping[str, object], surroundings: Surroundings = OURS) -> None:
    """Run one hook and wait for it.

    Raises UsageError for a malformed hook, WorkloadError when it cannot be started, fails, or is not done in time; its
    process group is then killed.
    """
    name = f"{kind} hook {index} ({hook.path})"
    if not os.path.isabs(hook.path):
        raise UsageError(f"{name}: the path is not absolute")
    if hook.timeout is not None and hook.timeout <= 0:
        raise UsageError(f"{name}: a timeout of {hook.timeout:g} s", "give a number above 0, or none")
    plan = _plan(name, hook, surroundings)
    # Files, not pipes: a daemon that the hook leaves behind holds its output open, which must not keep us waiting.
    with _memory_file("hook-stdin") as stdin, _memory_file("hook-output") as output, ExitStack() as undo:
        os.write(stdin, json.dumps(state).encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        try:
            with Launch(plan, {0: stdin, 1: output, 2: output}) as launch:
                launch.next()
        except StepError as error:
            what = os.strerror(error.errno) if isinstance(error.failed, s.Exec) else error.message
            raise WorkloadError(f"{name}: start it: {what}") from error
        undo.callback(_reap, launch.pid)
        pidfd = os.pidfd_open(launch.pid)
        undo.callback(os.close, pidfd)
        try:
            in_time = wait_exit(pidfd, hook.timeout)
        except BaseException:
            _kill_group(launch.pid)
            raise
        if not in_time:
            _kill_group(launch.pid)
            raise WorkloadError(f"{name}: not done after {hook.timeout:g} s, killed{_tail(output)}")
        # It is reaped at the end; before, the process group's number cannot be another's.
        status = os.waitid(os.P_PID, launch.pid, os.WEXITED | os.WNOWAIT)
        if status is None or status.si_code != os.CLD_EXITED or status.si_status != 0:
            _kill_group(launch.pid)
            raise WorkloadError(f"{name}: {_how_it_ended(status)}{_tail(output)}")


def _plan(name: str, hook: Hook, surroundings: Surroundings) -> s.Plan:
    umask = os.umask(0o077)
    os.umask(umask)
    environment = surroundings.environment if hook.env is None else _environment(name, hook.env)
    if environment is None:
        environment = tuple(f"{name}={value}" for name, value in os.environ.items())
    child: tuple[s.Step, ...] = (
        *surroundings.become,
        s.Setsid(),
        s.Umask(umask),
        *((s.Chdir(surroundings.directory),) if surroundings.directory else ()),
        s.CloseOnExec(3),
        s.Exec(tuple(hook.args) or (hook.path,), environment, program=hook.path),
    )
    return s.Plan(child, surroundings.join)


def _environment(name: str, env: Sequence[str]) -> tuple[str, ...]:
    """Of two with the same name the last is taken, as in a process's."""
    entries: dict[str, str] = {}
    for entry in env:
        key, equals, _ = entry.partition("=")
        if not key or not equals:
            raise UsageError(f"{name}: the environment has {entry!r}", "write NAME=value")
        entries[key] = entry
    return tuple(entries.values())


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _how_it_ended(status: os.waitid_result | None) -> str:
    if status is None or status.si_code == os.CLD_EXITED:
        return f"exit status {status.si_status if status else 0}"
    try:
        return f"killed by {signal.Signals(status.si_status).name}"
    except ValueError:  # a real-time signal without a name
        return f"killed by signal {status.si_status}"


def _tail(output: int) -> str:
    """The last lines that a hook wrote, on lines of their own; nothing when it wrote nothing."""
    size = os.fstat(output).st_size
    text = os.pread(output, _TAIL_BYTES, max(size - _TAIL_BYTES, 0)).decode(errors="replace").strip()
    return "".join(f"\n  | {line}" for line in text.splitlines()[-_TAIL_LINES:])


@contextmanager
def _memory_file(name: str) -> Iterator[int]:
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
