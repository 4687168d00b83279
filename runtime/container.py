"""This module manages the life of one container: it starts a plan, signals it, waits for it and removes the rest."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from msgspec import Struct

from runtime.cgroups import Cgroup, hierarchies, require
from runtime.errors import PrerequisiteError, UsageError
from runtime.launcher import Spawned, launch
from runtime.plan.network import Attachment
from runtime.plan.workload import Building, workload_plan
from runtime.processes import wait_exit
from runtime.spec import Spec


class Container(Struct):
    """A started container.

    ``requested_ns`` is when the start was requested. Together with ``process.cloned_ns`` and ``process.executed_ns`` it
    gives the phases of the start, all in CLOCK_MONOTONIC. No descriptor is held for the process: it is our child, so
    its pid is not reused before it is reaped.
    """

    name: str
    cgroup: Cgroup
    process: Spawned
    requested_ns: int
    exit_status: int | None = None

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Return the first process's exit status (128 + n when signal n ended it), or None when the time is over."""
        if self.exit_status is None and timeout_s:
            with suppress(ProcessLookupError), _pidfd(self.process.pid) as pidfd:
                wait_exit(pidfd, timeout_s)
        if self.exit_status is None:
            self.exit_status = _reap(self.process.pid, 0 if timeout_s is None else os.WNOHANG)
        return self.exit_status

    def alive(self) -> bool:
        """Tell whether the first process is still running."""
        return self.wait(0) is None

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the first process, unless it has ended."""
        if self.alive():
            os.kill(self.process.pid, number)

    def delete(self) -> None:
        """Kill the processes that still run and remove the cgroup.

        When the first process of a pid namespace is killed, the kernel ends all others in it before it reports that one
        as dead. The mounts, namespaces and veth disappear with them.
        """
        self.send_signal(signal.SIGKILL)
        self.wait()
        self.cgroup.remove()


@contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _reap(pid: int, options: int) -> int | None:
    try:
        reaped, status = os.waitpid(pid, options)
    except ChildProcessError:
        return 128 + signal.SIGKILL  # the cgroup's killer reaped it
    if not reaped:
        return None
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def start(
    spec: Spec,
    *,
    name: str,
    stdout: int,
    stdin: int | None = None,
    attachment: Attachment | None = None,
    building: Building | None = None,
    connect: Callable[[int], None] | None = None,
) -> Container:
    """Start ``spec`` as a container whose cgroup is ``name``; return once its command has been executed.

    ``stdout`` also takes standard error; ``stdin`` None is /dev/null. With ``building`` it makes a layer of an image;
    ``connect`` gets the pid of the process that is in its network namespace, before the command is executed. Raises
    StepError when the kernel refuses a step, UsageError when the name is taken, and PrerequisiteError without root or
    a required controller. A failed start leaves nothing behind.
    """
    requested_ns = time.monotonic_ns()
    on_host = hierarchies()
    if os.geteuid() != 0:
        raise PrerequisiteError(f"start container {name}: needs root", "run as root, or through sudo")
    require(on_host)
    cgroup = Cgroup(name, on_host)
    if cgroup.exists():
        raise UsageError(f"start container {name}: a cgroup of this name exists", "run `invoke clean`")
    plan = workload_plan(spec, on_host, name, attachment=attachment, building=building)
    with ExitStack() as opened, ExitStack() as undo:
        if stdin is None:
            stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, stdin)
        undo.callback(cgroup.remove)
        cgroup.make_parent()
        process = launch(plan, stdin=stdin, stdout=stdout, stderr=stdout, answer=connect)
        undo.pop_all()
    return Container(name, cgroup, process, requested_ns)


def run(spec: Spec, *, name: str, log: int | None = None, building: Building | None = None) -> int:
    """Run ``spec`` as a container until it ends and return its exit status (128 + n for signal n).

    ``log`` is the descriptor for its output; None stands for our own standard output.
    """
    container = start(spec, name=name, stdout=1 if log is None else log, building=building)
    try:
        status = container.wait()
    finally:
        container.delete()
    assert status is not None  # waited without a limit
    return status
