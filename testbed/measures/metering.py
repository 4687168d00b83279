"""What instances have used that no cgroup has, and what is left of the machine that has them, as that says: a
hypervisor that is not a program here."""

from __future__ import annotations

from collections.abc import Iterable

from testbed.platforms.protocol import Instance, Metered, Platform
from testbed.results import Metric
from testbed.sample import HostReading
from testbed.sample import read_host as read_kernel


def read(platform: Platform, instances: Iterable[Instance]) -> tuple[Metric, ...]:
    """Return the processor time that all instances have used since their starts, and the memory that they have now;
    nothing on a platform of processes, or when one has just ended."""
    if not isinstance(platform, Metered):
        return ()
    meters = [platform.meter(instance) for instance in instances]
    try:
        used_ns, held_bytes = sum(one.cpu_usage_ns() for one in meters), sum(one.memory_bytes() for one in meters)
    except OSError:
        return ()
    return (Metric("metered_cpu", used_ns / 1e9, "s"), Metric("metered_memory", held_bytes, "bytes"))


def read_host(platform: Platform) -> HostReading:
    """Read the host of a platform's instances now."""
    return platform.read_host() if isinstance(platform, Metered) else read_kernel()
