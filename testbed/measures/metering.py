"""What instances have used that no cgroup has, as what has them says: a hypervisor that is not a program here."""

from __future__ import annotations

from collections.abc import Iterable

from runtime.errors import TestbedError
from testbed.platforms.protocol import Instance, Metered, Platform
from testbed.results import Metric


def read(platform: Platform, instances: Iterable[Instance]) -> tuple[Metric, ...]:
    """Return the processor time that all instances have used since their starts, and the memory that they have now;
    nothing on a platform of processes, or when one has just ended."""
    if not isinstance(platform, Metered):
        return ()
    meters = [platform.meter(instance) for instance in instances]
    try:
        used_ns, held_bytes = sum(one.cpu_usage_ns() for one in meters), sum(one.memory_bytes() for one in meters)
    except TestbedError:
        return ()
    return (Metric("metered_cpu", used_ns / 1e9, "s"), Metric("metered_memory", held_bytes, "bytes"))
