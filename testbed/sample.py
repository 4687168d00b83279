"""Reads what instances and the host use at a moment: CPU time and memory, in the same way for every platform.

Memory is read three ways, because each is blind to something: a cgroup's charge includes the page cache it
caused and misses pages that another cgroup touched first; PSS divides shared pages among those that map them
(Documentation/filesystems/proc.rst) and misses the kernel's own memory; the change of the host's MemAvailable
includes everything, and everything else that happens on the host. What is read again and again while a trial runs is
read by testbed.sampler.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from runtime.cgroups import Cgroup, Throttling
from runtime.kernel_files import available_bytes

PROC = Path("/proc")
CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Meter(Protocol):
    """What says how much an instance has used: its cgroup, or what counts where no cgroup does."""

    def cpu_usage_ns(self) -> int:
        """Return the processor time that it has used, nanoseconds. Raises OSError when it has ended."""

    def memory_bytes(self) -> int:
        """Return the memory that it has. Raises OSError when it has ended."""


class Reading(Struct, frozen=True):
    """One cgroup at a moment of CLOCK_MONOTONIC; ``cpu_ns`` and ``throttling`` count since the cgroup was made."""

    t_ns: int
    cpu_ns: int
    cgroup_bytes: int
    pss_bytes: int
    throttling: Throttling = Throttling()


class HostReading(Struct, frozen=True):
    """The host at a moment: clock ticks since boot, summed over processors, and MemAvailable.

    ``busy_ticks`` leaves out idle, waiting for I/O, and ``steal_ticks``: time that the host's own hypervisor
    gave to others. ``total_ticks`` has all of them.
    """

    t_ns: int
    busy_ticks: int
    steal_ticks: int
    total_ticks: int
    available_bytes: int


class Shares(Struct, frozen=True):
    """Who used the host's processors in a window, as fractions (0 to 1) of all processors' time.

    ``generator`` holds the sampler too. ``others`` is what was busy besides: other programs, and what the kernel does
    on nobody's account.
    """

    application: float
    generator: float
    others: float


def sum_cpu_ns(meters: Iterable[Meter]) -> int:
    """Return the CPU time that all have counted so far, in nanoseconds. Raises OSError when one is gone."""
    return sum(meter.cpu_usage_ns() for meter in meters)


def read_usage(cgroup: Cgroup) -> Reading:
    """Read a cgroup now. Raises OSError when it is gone."""
    return Reading(
        time.monotonic_ns(),
        cgroup.cpu_usage_ns(),
        cgroup.memory_bytes(),
        read_pss_bytes(cgroup.pids()),
        cgroup.throttling(),
    )


def read_pss_bytes(pids: Iterable[int]) -> int:
    """Return the proportional set size of processes, summed; those that have ended by now count nothing.

    The kernel walks a process's page tables for it: 0.1 ms for a small process, about 1 ms for each
    hundred MiB resident.
    """
    total_bytes = 0
    for pid in pids:
        try:
            rollup = (PROC / str(pid) / "smaps_rollup").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total_bytes += parse_pss(rollup)
    return total_bytes


def parse_pss(rollup: bytes) -> int:
    """Return the bytes of the ``Pss:`` line of a smaps_rollup; 0 when there is none (a zombie, a kernel thread)."""
    for line in rollup.splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def read_host() -> HostReading:
    """Read the host now."""
    return parse_host(time.monotonic_ns(), (PROC / "stat").read_text(), (PROC / "meminfo").read_text())


def parse_host(t_ns: int, stat: str, meminfo: str) -> HostReading:
    """Return a HostReading from the text of /proc/stat and /proc/meminfo."""
    # user nice system idle iowait irq softirq steal; guest and guest_nice follow and are in user and nice.
    ticks = [int(field) for field in stat.splitlines()[0].split()[1:9]]
    total_ticks, idle_ticks, steal_ticks = sum(ticks), ticks[3] + ticks[4], ticks[7]
    return HostReading(t_ns, total_ticks - idle_ticks - steal_ticks, steal_ticks, total_ticks, available_bytes(meminfo))


def compute_utilisation(before: HostReading, after: HostReading) -> float:
    """Return the fraction (0 to 1) of all processors' time that was used between two readings."""
    return _fraction(after.busy_ticks - before.busy_ticks, after.total_ticks - before.total_ticks)


def compute_steal(before: HostReading, after: HostReading) -> float:
    """Return the fraction (0 to 1) of all processors' time that the host's own hypervisor gave to others."""
    return _fraction(after.steal_ticks - before.steal_ticks, after.total_ticks - before.total_ticks)


def compute_shares(before: HostReading, after: HostReading, application_s: float, generator_s: float) -> Shares:
    """Return the host's busy time between two readings, split by the CPU seconds of those who are measured.

    The kernel counts busy time in ticks and a cgroup's by the clock, so in a short window ``others`` is good to a tick
    for each processor.
    """
    total_s = (after.total_ticks - before.total_ticks) / CLOCK_TICKS_PER_S
    if total_s <= 0:
        return Shares(0.0, 0.0, 0.0)
    application, generator = (min(max(used_s / total_s, 0.0), 1.0) for used_s in (application_s, generator_s))
    return Shares(application, generator, max(0.0, compute_utilisation(before, after) - application - generator))


def _fraction(part: int, whole: int) -> float:
    # The kernel warns that iowait and steal can run backwards, so the difference may leave the interval.
    return min(max(part / whole, 0.0), 1.0) if whole > 0 else 0.0


def cpu_s(before: Reading, after: Reading) -> float:
    """Return the CPU seconds that a cgroup used between two readings."""
    return (after.cpu_ns - before.cpu_ns) / 1e9
