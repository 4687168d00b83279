"""This module manages the life of one container: it starts a plan, at once or from a pool, signals it, waits for it and
removes the rest."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from runtime.cgroups import Cgroup, Hierarchies, hierarchies, require
from runtime.errors import PrerequisiteError, TestbedError, UsageError, WorkloadError
from runtime.launcher import Launch, Spawned, launch
from runtime.launcher.messages import CONSOLE, SYNC
from runtime.plan.bundle import POOLED
from runtime.plan.execution import exec_plan
from runtime.plan.network import Attachment
from runtime.plan.steps import Plan
from runtime.plan.workload import Building, workload_plan
from runtime.processes import wait_exit
from runtime.spec import Process, Spec, configuration, configured_process
from runtime.unionfs.overlay import WritableLayer


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
            self.exit_status = reap(self.process.pid, 0 if timeout_s is None else os.WNOHANG)
        return self.exit_status

    def alive(self) -> bool:
        """Tell whether the first process is still running."""
        return self.wait(0) is None

    def send_signal(self, number: int) -> None:
        """Signal the first process, unless it has ended."""
        if self.alive():
            os.kill(self.process.pid, number)

    def delete(self) -> None:
        """Kill the processes that still run and remove the cgroup.

        When the first process of a pid namespace is killed, the kernel ends all others in it before it reports that one
        as dead; it waits for those that joined from outside to be reaped, so whatever shares the namespace is to be
        deleted before. In a shared namespace, the others are killed after it. The mounts, namespaces and veth disappear
        with them.
        """
        self.send_signal(signal.SIGKILL)
        self.wait()
        self.cgroup.kill()
        self.cgroup.remove()


@contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def reap(pid: int, options: int = 0) -> int | None:
    """Return how a child of ours ended (128 + n when signal n ended it); None with WNOHANG while it runs."""
    try:
        reaped, status = os.waitpid(pid, options)
    except ChildProcessError:
        return 128 + signal.SIGKILL  # the cgroup's killer reaped it
    if not reaped:
        return None
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def check_startable(name: str, also: tuple[str, ...] = ()) -> Cgroup:
    """Return the container's cgroup, which does not exist yet, and is ``also`` in the hierarchies of these controllers.
    Raises PrerequisiteError or UsageError."""
    on_host = hierarchies()
    on_host = replace(on_host, wanted=(*on_host.wanted, *also)) if also else on_host
    if os.geteuid() != 0:
        raise PrerequisiteError(f"start container {name}: needs root", "run as root, or through sudo")
    require(on_host)
    cgroup = Cgroup(name, on_host)
    if cgroup.exists():
        raise UsageError(f"start container {name}: a cgroup of this name exists", "run `invoke clean`")
    return cgroup


@contextmanager
def _input(stdin: int | None) -> Iterator[int]:
    if stdin is not None:
        yield stdin
        return
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield null
    finally:
        os.close(null)


def start(
    spec: Spec,
    *,
    name: str,
    stdout: int,
    stdin: int | None = None,
    attachment: Attachment | None = None,
    building: Building | None = None,
    writable: WritableLayer | None = None,
    freezable: bool = False,
    connect: Callable[[int], None] | None = None,
) -> Container:
    """Start ``spec`` as a container whose cgroup is ``name``; return once its command has been executed.

    ``stdout`` also takes standard error; ``stdin`` None is /dev/null. With ``building`` it makes a layer of an image;
    ``writable`` takes its changes, which are in memory without it. ``freezable``, its cgroup can be frozen on cgroup
    v1, too, where the cgroup above it exists in that hierarchy. ``connect`` gets the pid of the process that is in its
    network namespace, before the command is executed. Raises StepError when the kernel refuses a step, UsageError
    when the name is taken, and PrerequisiteError without root or a required controller. A failed start leaves nothing
    behind.
    """
    make = partial(workload_plan, spec, cgroup=name, attachment=attachment, building=building, writable=writable)
    also = ("freezer",) if freezable else ()
    return start_planned(make, name=name, stdout=stdout, stdin=stdin, also=also, answer=connect)


def start_planned(
    make: Callable[[Hierarchies], Plan],
    *,
    name: str,
    stdout: int,
    stdin: int | None = None,
    also: tuple[str, ...] = (),
    answer: Callable[[int], None] | None = None,
) -> Container:
    """Start the container of a plan that makes the cgroup ``name``, as ``start`` does; ``answer`` gets its first
    process's pid at each point at which that waits for its parent. The cgroup is ``also`` in the hierarchies of these
    controllers, where the one above it exists."""
    requested_ns = time.monotonic_ns()
    cgroup = check_startable(name, also)
    plan = make(cgroup.hierarchies)
    with _input(stdin) as standard_input, ExitStack() as undo:
        undo.callback(cgroup.remove)
        cgroup.make_parent()
        process = launch(plan, stdin=standard_input, stdout=stdout, stderr=stdout, answer=answer)
        undo.pop_all()
    return Container(name, cgroup, process, requested_ns)


class PooledContainer:
    """A container whose plan has been performed up to its last step, the exec of its command, and that waits for it.

    Cgroup, namespaces, mounts, network, user and filter are there, and what they take is charged to its cgroup. It is
    started at most once, and ends by itself when the program that made it ends. ``requested_ns`` and ``pooled_ns`` are
    when its making began and ended (CLOCK_MONOTONIC), ``pid`` is its first process's.
    """

    def __init__(self, name: str, cgroup: Cgroup, launching: Launch, requested_ns: int) -> None:
        self.name, self.cgroup, self.pid, self.requested_ns = name, cgroup, launching.known_pid(), requested_ns
        self.pooled_ns = time.monotonic_ns()
        self._launching = launching
        self._exit_status: int | None = None
        self._started = False

    def exit_status(self) -> int | None:
        """Return how it ended while it waited (128 + n when signal n ended it); None as long as it waits."""
        if self._exit_status is None and not self._started:
            self._exit_status = reap(self.pid, os.WNOHANG)
        return self._exit_status

    def start(self) -> Container:
        """Let it do its last step; return once its command has been executed. From then on it is the returned one.

        Raises UsageError when it has been started before, WorkloadError when it has ended while it waited, and
        StepError when the command cannot be executed. Nothing is left of it after an error.
        """
        requested_ns = time.monotonic_ns()
        if self._started:
            raise UsageError(f"start pooled container {self.name}: it has been started before")
        with ExitStack() as undo:
            undo.callback(self.delete)
            if (status := self.exit_status()) is not None:
                raise WorkloadError(
                    f"start pooled container {self.name}: it ended while it waited in the pool (exit status {status})",
                    "something killed it: its memory limit (see dmesg), or whoever signals its processes",
                )
            self._launching.go()
            self._launching.next()
            process = Spawned(self.pid, self._launching.cloned_ns, time.monotonic_ns())
            self._started = True
            undo.pop_all()
        self._launching.channel.close()
        return Container(self.name, self.cgroup, process, requested_ns)

    def delete(self) -> None:
        """End it and remove what it has, unless it was started; harmless when that has been done."""
        if self._started:
            return
        self._launching.channel.close()
        if self.exit_status() is None:
            os.kill(self.pid, signal.SIGKILL)
            self._exit_status = reap(self.pid, 0)
        self.cgroup.remove()


def pool(spec: Spec, *, name: str, stdout: int, attachment: Attachment | None = None) -> PooledContainer:
    """Make a container as ``start`` does, all but its last step; return once it waits for that one.

    Raises what ``start`` raises, also for a command that is not there. A failure leaves nothing behind.
    """
    requested_ns = time.monotonic_ns()
    cgroup = check_startable(name)
    plan = workload_plan(spec, cgroup.hierarchies, name, attachment=attachment, pooled=True)
    with _input(None) as standard_input, ExitStack() as undo:
        undo.callback(cgroup.remove)
        cgroup.make_parent()
        launching = undo.enter_context(Launch(plan, {0: standard_input, 1: stdout, 2: stdout}))
        message = launching.next()
        if message is None or (message.kind, message.number) != (SYNC, POOLED):
            raise TestbedError(f"make pooled container {name}: it said {message}, not that it waits")
        pooled = PooledContainer(name, cgroup, launching, requested_ns)
        undo.callback(pooled.delete)
        launching.reap_launcher()
        undo.pop_all()
    return pooled


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


class Joined(Struct, frozen=True):
    """A further process of a container: its ``pid``, a child of ours that ``reap`` waits for, and the master side of
    its terminal, the caller's to close, or -1."""

    pid: int
    master: int = -1


def join(
    spec: Spec, process: Process, *, pid: int, cgroup: str, streams: tuple[int, int, int], terminal: bool = False
) -> Joined:
    """Start a further process in the container of ``spec`` whose first process is ``pid``, in its ``cgroup``.

    The ``streams`` become its standard ones, unless it gets a ``terminal``. Raises StepError when the kernel refuses a
    step: there is no such program in the container, or the container has just ended.
    """
    configured = replace(configured_process(process), terminal=terminal)
    plan = exec_plan(configured, configuration(spec), hierarchies(), pid, cgroup, 0, keep_groups=False)
    return join_planned(plan, streams=() if terminal else streams)


def join_planned(plan: Plan, *, streams: tuple[int, ...]) -> Joined:
    """Start the process of a plan as ``join`` does; without ``streams`` the plan gives it a terminal."""
    master = -1
    with Launch(plan, dict(enumerate(streams))) as launching:
        while (message := launching.next()) is not None:
            if message.kind != CONSOLE:
                raise TestbedError(f"the launcher asked for an answer ({message.kind}) that nobody has")
            master = message.descriptor
        return Joined(launching.pid, master)


def wait_or_kill(pid: int, timeout_s: float) -> int | None:
    """Return how a child of ours ended (128 + n when signal n ended it); None when it took longer, and was killed."""
    with _pidfd(pid) as pidfd:
        ended = wait_exit(pidfd, timeout_s)
        if not ended:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    status = reap(pid)
    return status if ended else None
