"""Hooks: the programs that an OCI configuration wants run at points of a container's life (runtime-spec, POSIX hooks).

A hook gets the container's state as JSON on its standard input, and is given up on after its timeout.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Protocol

from runtime.errors import TestbedError, UsageError, WorkloadError
from runtime.processes import wait_exit

# A failure of these does not fail the operation (runtime-spec 1.2, Lifecycle, steps 9 and 13).
_WARN_ONLY = ("poststart", "poststop")
_TAIL_BYTES = 4096
_TAIL_LINES = 10


class Hook(Protocol):
    """A hook as configured: absolute ``path``, ``args`` (argv with its first; empty: only the path), ``env`` as
    ``NAME=value``, ``timeout`` in seconds or None."""

    @property
    def path(self) -> str: ...
    @property
    def args(self) -> Sequence[str]: ...
    @property
    def env(self) -> Sequence[str]: ...
    @property
    def timeout(self) -> float | None: ...


def run_hooks(
    kind: str, hooks: Sequence[Hook], state: Mapping[str, object], *, warn: Callable[[str], None] | None = None
) -> None:
    """Run the hooks of one kind in order; ``state`` is what ``runtime.state.oci_state`` returns.

    The first failure ends it with that error, except for ``poststart`` and ``poststop``: there every hook
    is run, and each failure is given to ``warn``. Raises UsageError, WorkloadError.
    """
    for index, hook in enumerate(hooks):
        try:
            run_hook(kind, index, hook, state)
        except TestbedError as error:
            if kind not in _WARN_ONLY:
                raise
            if warn:
                warn(str(error))


def run_hook(kind: str, index: int, hook: Hook, state: Mapping[str, object]) -> None:
    """Run one hook and wait for it.

    Its environment is ``hook.env`` and nothing else. Raises UsageError for a malformed hook, WorkloadError when it
    cannot be started, fails, or is not done in time; its process group is then killed.
    """
    import subprocess

    name = f"{kind} hook {index} ({hook.path})"
    if not os.path.isabs(hook.path):
        raise UsageError(f"{name}: the path is not absolute")
    if hook.timeout is not None and hook.timeout <= 0:
        raise UsageError(f"{name}: a timeout of {hook.timeout:g} s", "give a number above 0, or none")
    environment = _environment(name, hook.env)
    # Files, not pipes: a daemon that the hook leaves behind holds its output open, which must not keep us waiting.
    with _memory_file("hook-stdin") as stdin, _memory_file("hook-output") as output, ExitStack() as undo:
        os.write(stdin, json.dumps(state).encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        try:
            process = subprocess.Popen(
                list(hook.args) or [hook.path],
                executable=hook.path,
                env=environment,
                stdin=stdin,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL byte
            raise WorkloadError(f"{name}: start it: {getattr(error, 'strerror', None) or error}") from error
        undo.callback(process.wait)
        pidfd = os.pidfd_open(process.pid)
        undo.callback(os.close, pidfd)
        try:
            in_time = wait_exit(pidfd, hook.timeout)
        except BaseException:
            _kill_group(process.pid)
            raise
        if not in_time:
            _kill_group(process.pid)
            raise WorkloadError(f"{name}: not done after {hook.timeout:g} s, killed{_tail(output)}")
        # The wait reaps; before it, the process group's number cannot be another's.
        status = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        if status is None or status.si_code != os.CLD_EXITED or status.si_status != 0:
            _kill_group(process.pid)
            raise WorkloadError(f"{name}: {_how_it_ended(process.wait())}{_tail(output)}")


def _environment(name: str, env: Sequence[str]) -> dict[str, str]:
    environment: dict[str, str] = {}
    for entry in env:
        key, equals, value = entry.partition("=")
        if not key or not equals:
            raise UsageError(f"{name}: the environment has {entry!r}", "write NAME=value")
        environment.setdefault(key, value)  # of two, getenv(3) finds the first
    return environment


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _how_it_ended(returncode: int) -> str:
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:  # a real-time signal without a name
        return f"killed by signal {-returncode}"


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
