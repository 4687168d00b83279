"""When the steps of a plan ended: noted by the launcher, in memory that is shared with it, when somebody asks."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from msgspec import Struct
from msgspec.structs import replace

from runtime.launcher.memory import memory_file
from runtime.plan.constants import TIME_OFFSETS
from runtime.plan.steps import TIMES_FD, NoteTimes, Plan, Step, Write

_TIME_BYTES = 8


class StepTimes(Struct, frozen=True):
    """When the steps of a performed plan ended, in nanoseconds of CLOCK_MONOTONIC: ``ended_ns`` by their index, 0 for
    one that was not performed, or by which the process was gone: an exec. ``begun_ns`` is when the launcher was
    started, ``child_ns`` when the cloned process began."""

    plan: Plan
    begun_ns: int
    ended_ns: tuple[int, ...]
    child_ns: int
    executed_ns: int

    def list_durations_ns(self) -> Iterator[tuple[Step | None, int]]:
        """Yield each step in order with what it took; None stands for the clone. What passed until the launcher had
        read the plan is the first step's; the last step's, an exec, lasts until the workload ran."""
        last_ns = self.begun_ns
        ends = list(zip(self.plan.steps(), self.ended_ns, strict=True))
        parents = len(self.plan.parent)
        marks = [*ends[:parents], (None, self.child_ns), *ends[parents:]]
        for number, (step, ended_ns) in enumerate(marks, 1):
            end_ns = ended_ns or (self.executed_ns if number == len(marks) else 0)
            if end_ns:
                yield step, max(0, end_ns - last_ns)
                last_ns = end_ns


def find_clock_shift_ns(plan: Plan) -> int:
    """Return by how much CLOCK_MONOTONIC differs for the child of a plan that puts it into a time namespace."""
    lines = (
        line.split()
        for step in plan.parent
        if isinstance(step, Write) and step.path == TIME_OFFSETS
        for line in step.data
    )
    return next((int(secs) * 1_000_000_000 + int(nanosecs) for name, secs, nanosecs in lines if name == "monotonic"), 0)


_timed: ContextVar[list[StepTimes] | None] = ContextVar("_timed", default=None)


@contextmanager
def time_steps() -> Iterator[list[StepTimes]]:
    """Within, the steps of each plan that this thread has performed are timed; the list grows by one with each plan
    whose workload has been executed. A plan grows by one step, and each step by a system call; otherwise nothing is
    timed, and costs nothing."""
    times: list[StepTimes] = []
    token = _timed.set(times)
    try:
        yield times
    finally:
        _timed.reset(token)


class NotedTimes:
    """A ``plan`` that begins with the step that notes times, in the memory that is open as ``descriptor``."""

    def __init__(self, plan: Plan, descriptor: int, times: list[StepTimes]) -> None:
        self.plan, self.descriptor, self._times = plan, descriptor, times
        self._memory = mmap.mmap(descriptor, 0)
        self._begun_ns = time.monotonic_ns()

    def conclude(self) -> None:
        """Add them to the list of whoever has asked, when the workload has been executed."""
        executed_ns = time.monotonic_ns()
        *noted_ns, child_ns = struct.unpack(f"={len(self._memory) // _TIME_BYTES}q", self._memory)
        shift_ns, parents = find_clock_shift_ns(self.plan), len(self.plan.parent)
        ended_ns = (*noted_ns[:parents], *(noted and noted - shift_ns for noted in noted_ns[parents:]))
        self._times.append(StepTimes(self.plan, self._begun_ns, ended_ns, child_ns - shift_ns, executed_ns))


@contextmanager
def note_times(plan: Plan) -> Iterator[NotedTimes | None]:
    """Within, the launcher may be started for a plan whose times this thread is to know; None if it need not."""
    times = _timed.get()
    if times is None:
        yield None
        return
    noting = replace(plan, parent=(NoteTimes(TIMES_FD), *plan.parent))
    with memory_file("testbed-times", bytes(_TIME_BYTES * (sum(1 for _ in noting.steps()) + 1))) as file:
        yield NotedTimes(noting, file, times)
