"""What the platform's own processes take beside the workload."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from msgspec import Struct

from testbed.platforms.protocol import Instance, Overhead, Overseen, Platform
from testbed.results import Metric

NOTHING = Overhead()


class Beside(Struct, frozen=True):
    """What those processes have taken that belong to the running instances, and what a ``shared`` daemon has."""

    own: Overhead = NOTHING
    shared: Overhead | None = None


def read(platform: Platform, instances: Iterable[Instance]) -> Beside | None:
    """Return what they have taken by now; None on a platform that has no such processes."""
    if not isinstance(platform, Overseen):
        return None
    memory_bytes, cpu_ns = 0, 0
    for instance in instances:
        with suppress(OSError):  # it has just ended
            one = platform.overhead(instance)
            memory_bytes, cpu_ns = memory_bytes + one.memory_bytes, cpu_ns + one.cpu_ns
    return Beside(Overhead(memory_bytes, cpu_ns), platform.shared_overhead())


def make_metrics(before: Beside | None, after: Beside | None) -> tuple[Metric, ...]:
    """Return the memory as it was ``after``, and the processor time since ``before``; nothing without both."""
    if before is None or after is None:
        return ()
    metrics = _metrics("overhead", before.own, after.own)
    if after.shared is None:
        return metrics
    return (*metrics, *_metrics("shared_overhead", before.shared or NOTHING, after.shared))


def _metrics(name: str, before: Overhead, after: Overhead) -> tuple[Metric, ...]:
    return (
        Metric(f"{name}_memory", after.memory_bytes, "bytes"),
        Metric(f"{name}_cpu", (after.cpu_ns - before.cpu_ns) / 1e9, "s"),
    )
