"""Instances of peers that run: their processes and cgroups, and how these end."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from msgspec import Struct

from runtime.cgroups import Cgroup, Throttling
from runtime.container import reap
from runtime.launcher import Spawned
from runtime.processes import ProcessGone, parent
from testbed.platforms.peers.peer import Place
from testbed.platforms.peers.sweep import remove_directories

_LOOK_S = 0.001


class SplitCgroup(Cgroup, frozen=True):
    """The cgroup above those of a workload and of its peer's own processes; the quota is the ``workload``'s, and what
    it holds back is told there."""

    workload: str = ""

    def file(self, controller: str, v1: str, v2: str) -> Path:
        path = super().file(controller, v1, v2)
        if controller != "cpu" or path.name != "cpu.stat" or "cpu" not in self.hierarchies.v1:
            return path
        return Cgroup(self.workload, self.hierarchies).file(controller, v1, v2)

    def throttling(self) -> Throttling:
        return Cgroup(self.workload, self.hierarchies).throttling()


class Running(Struct):
    """A started instance: its place, the process that became the peer's program, and how that ended."""

    place: Place
    process: Spawned
    requested_ns: int
    undo: ExitStack
    returned_ns: int = 0
    status: int | None = None
    ended: int | None = None
    pid: int = 0
    pidfd: int = -1
    workload: str = ""
    orphans: frozenset[int] = frozenset()

    @property
    def cgroup(self) -> Cgroup:
        return Cgroup(self.place.cgroup, self.place.hierarchies)


def program_status(running: Running) -> int | None:
    """Return how the peer's program has ended; None while it runs."""
    if running.status is None:
        running.status = reap(running.process.pid, os.WNOHANG)
    return running.status


def workload_status(running: Running) -> int | None:
    """Return how the workload of a peer whose program had ended before has ended; None while it runs, and where it is
    no child that was left to us."""
    if running.ended is None and running.pid:
        with suppress(ChildProcessError):
            reaped, status = os.waitpid(running.pid, os.WNOHANG)
            running.ended = os.waitstatus_to_exitcode(status) if reaped else None
    return running.ended


def await_adoption(pid: int, timeout_s: float) -> bool:
    """Wait until a workload is our child, or has ended; whether it is so in time.

    A peer's program may leave a process that is the workload's parent and about to end (crun does, and takes up to
    some 100 ms): a workload that asks to be killed with its parent (prctl(2), PR_SET_PDEATHSIG) would be.
    """
    deadline_s = time.monotonic() + timeout_s
    with suppress(ProcessGone):
        while parent(pid) != os.getpid():
            if time.monotonic() > deadline_s:
                return False
            time.sleep(_LOOK_S)
    return True


def end_processes(running: Running) -> None:
    """Kill what is left of an instance, and reap those of it that are our children, or were left to us."""
    before = list_children()
    if running.pidfd >= 0:
        os.close(running.pidfd)
    ours = {running.process.pid, running.pid, *running.cgroup.pids()} - {0}
    running.cgroup.kill()
    for pid in ours:
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
    for pid in running.orphans | (list_children() - before):
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def list_children() -> frozenset[int]:
    """Return this process's children, those that have ended among them; none on a kernel that does not list them."""
    found: set[int] = set()
    for children in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread that has just ended
            found.update(map(int, children.read_text().split()))
    return frozenset(found)


def remove_cgroup(cgroup: Cgroup) -> None:
    cgroup.kill()
    cgroup.remove()
    remove_directories(cgroup.name)
