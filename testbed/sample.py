"""Samples what instances and the host use: CPU time and memory, read in the same way for every platform.

Memory is read three ways, because each is blind to something: a cgroup's charge includes the page cache it
caused and misses pages that another cgroup touched first; PSS divides shared pages among those that map them
(Documentation/filesystems/proc.rst) and misses the kernel's own memory; the change of the host's MemAvailable
includes everything, and everything else that happens on the host.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from msgspec import Struct

from runtime.cgroups import Cgroup, Throttling
from runtime.kernel_files import available_bytes

PROC = Path("/proc")
CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


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


class Row(Struct, frozen=True):
    """One sample of a cgroup: ``t_s``, ``cpu_ns`` and ``throttling`` count from the sampler's first sample of it."""

    t_s: float
    name: str
    cpu_ns: int
    cgroup_bytes: int
    pss_bytes: int
    throttling: Throttling = Throttling()


class HostRow(Struct, frozen=True):
    """One sample of the host: fractions (0 to 1) of all processors' time since the sample before."""

    t_s: float
    busy: float
    steal: float
    available_bytes: int


class Usage(Struct, frozen=True):
    """A cgroup over a window: CPU time used in it, what its quota held back, and memory averaged over its samples."""

    cpu_s: float
    cgroup_bytes: float
    pss_bytes: float
    samples: int
    throttling: Throttling = Throttling()


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


def summarise_usage(rows: Sequence[Row], name: str, since_s: float = 0.0, until_s: float = float("inf")) -> Usage:
    """Return what ``name`` used in a window of the sampler's time, from the samples that fall into it.

    Memory is the mean of the samples. With fewer than two samples there is no CPU time to tell: 0.
    """
    own = [row for row in rows if row.name == name and since_s <= row.t_s <= until_s]
    if not own:
        return Usage(0.0, 0.0, 0.0, 0)
    count = len(own)
    return Usage(
        (own[-1].cpu_ns - own[0].cpu_ns) / 1e9,
        sum(row.cgroup_bytes for row in own) / count,
        sum(row.pss_bytes for row in own) / count,
        count,
        own[-1].throttling.since(own[0].throttling),
    )


class Sampler:
    """Samples cgroups and the host every ``interval_s`` in a thread, from entering to leaving the context.

    The first sample is taken on entering and the last on leaving, so CPU times are complete. ``rows`` and
    ``host_rows`` grow meanwhile; ``lost`` has the names whose cgroup went away. Samples that take longer
    than the interval delay the next ones instead of piling up; ``sampler_cpu_s`` is what it all cost.
    """

    def __init__(self, cgroups: Mapping[str, Cgroup], interval_s: float) -> None:
        self.rows: list[Row] = []
        self.host_rows: list[HostRow] = []
        self.lost: set[str] = set()
        self.sampler_cpu_s = 0.0
        self.began_ns = 0
        self._cgroups = dict(cgroups)
        self._interval_s = interval_s
        self._first: dict[str, Reading] = {}
        self._host_before = read_host()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._error: BaseException | None = None

    def __enter__(self) -> Sampler:
        self.began_ns = time.monotonic_ns()
        self._host_before = read_host()
        self._sample_cgroups()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if error is not None:
            return
        if self._error is not None:
            raise self._error
        self._sample()

    def _run(self) -> None:
        try:
            due_s = time.monotonic() + self._interval_s
            while not self._stop.wait(max(due_s - time.monotonic(), 0.0)):
                self._sample()
                due_s = max(due_s + self._interval_s, time.monotonic())
        except BaseException as error:  # raised again by __exit__, in the thread that can report it
            self._error = error
        finally:
            self.sampler_cpu_s += time.thread_time()

    def _sample(self) -> None:
        after = read_host()
        before, self._host_before = self._host_before, after
        self.host_rows.append(
            HostRow(
                self._since_s(after.t_ns),
                compute_utilisation(before, after),
                compute_steal(before, after),
                after.available_bytes,
            )
        )
        self._sample_cgroups()

    def _sample_cgroups(self) -> None:
        for name, cgroup in self._cgroups.items():
            if name in self.lost:
                continue
            try:
                now = read_usage(cgroup)
            except OSError:
                if cgroup.exists():
                    raise
                self.lost.add(name)
                continue
            first = self._first.setdefault(name, now)
            held_back = now.throttling.since(first.throttling)
            t_s, cpu_ns = self._since_s(now.t_ns), now.cpu_ns - first.cpu_ns
            self.rows.append(Row(t_s, name, cpu_ns, now.cgroup_bytes, now.pss_bytes, held_back))

    def _since_s(self, t_ns: int) -> float:
        return (t_ns - self.began_ns) / 1e9
