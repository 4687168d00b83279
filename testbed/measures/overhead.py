"""What the platform's own processes take beside the workload: a part of what its instances are charged for."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from msgspec import Struct

from testbed.platforms.protocol import Instance, Overseen, Platform
from testbed.results import Metric


class Overhead(Struct, frozen=True):
    """The memory that is charged to those processes, and the processor time that they have used since their instances
    were requested."""

    memory_bytes: int = 0
    cpu_ns: int = 0


NOTHING = Overhead()


def read(platform: Platform, instances: Iterable[Instance]) -> Overhead | None:
    """Return the sum over running instances; None on a platform that has no such processes."""
    if not isinstance(platform, Overseen):
        return None
    memory_bytes, cpu_ns = 0, 0
    for instance in instances:
        cgroup = platform.overhead(instance)
        with suppress(OSError):  # it has just ended
            memory_bytes += cgroup.memory_bytes()
            cpu_ns += cgroup.cpu_usage_ns()
    return Overhead(memory_bytes, cpu_ns)


def make_metrics(after: Overhead | None, before: Overhead | None = NOTHING) -> tuple[Metric, ...]:
    """Return the memory as it was ``after``, and the processor time since ``before``, or since the request."""
    if after is None or before is None:
        return ()
    return (
        Metric("overhead_memory", after.memory_bytes, "bytes"),
        Metric("overhead_cpu", (after.cpu_ns - before.cpu_ns) / 1e9, "s"),
    )
