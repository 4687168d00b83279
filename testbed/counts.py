"""Counts what hardware charges for and instructions do not show: exits of a guest, page faults, switches, interrupts.

Everything is read where a window begins and where it ends, never in between: a file of each cgroup, one of each thread,
one of the host, and for a machine one question to its QEMU.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import Struct

from runtime.cgroups import Cgroup

PROC = Path("/proc")
# More threads than these are not looked at one by one: there is no count then, rather than one of a part.
MOST_THREADS = 2048
_LONGEST_STATUS = 1 << 14
# Its line of interrupts has a number for each that the host could have: ten bytes for each of 65,536 at most.
_LONGEST_STAT = 1 << 20
# Lines of a thread's status (proc(5)).
_VOLUNTARY, _FORCED = b"voluntary_ctxt_switches:", b"nonvoluntary_ctxt_switches:"
TOTAL = "exits"
# The reasons that KVM itself tells apart (arch/x86/kvm/x86.c: kvm_vcpu_stats_desc), as they are called here. What they
# leave of all exits is OTHER: registers of the machine and of control, CPUID, and so on.
REASONS = {
    "pf_taken": "page_fault",
    "io_exits": "io",
    "mmio_exits": "mmio",
    "halt_exits": "halt",
    "irq_exits": "interrupt",
    "irq_window_exits": "interrupt_window",
    "nmi_window_exits": "nmi_window",
    "hypercalls": "hypercall",
}
OTHER = "other"


class Counts(Struct, frozen=True):
    """What has been counted of one instance since it was made.

    ``page_faults`` and ``major_faults`` are its cgroup's, ended processes included. ``switches`` are the context
    switches of its living threads, by thread; None where there are too many of them. ``exits`` are a guest's from
    itself to KVM, by reason; None where nothing counts them.
    """

    page_faults: int
    major_faults: int
    switches: Mapping[int, int] | None = None
    exits: Mapping[str, int] | None = None


class HostCounts(Struct, frozen=True):
    """What the whole host has counted since it booted."""

    interrupts: int
    switches: int


def read_counts(cgroup: Cgroup, exits: Mapping[str, int] | None = None) -> Counts:
    """Return the counts of an instance, with the ``exits`` that its platform knows. Raises OSError when it is gone."""
    stat = cgroup.memory_stat()
    # Version 1 has its own faults and, as total_, those of the cgroups below as well, as version 2 has.
    faults, major = (stat.get(f"total_{name}", stat.get(name, 0)) for name in ("pgfault", "pgmajfault"))
    return Counts(faults, major, read_switches(cgroup.pids()), exits)


def read_switches(pids: Iterable[int], kinds: tuple[bytes, ...] = (_VOLUNTARY, _FORCED)) -> Mapping[int, int] | None:
    """Return the context switches (of these ``kinds``) of each living thread of these processes; None when there are
    more than MOST_THREADS.

    It takes about 15 µs a thread.
    """
    switches: dict[int, int] = {}
    for pid in pids:
        try:
            threads = os.listdir(PROC / str(pid) / "task")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended by now
        if len(switches) + len(threads) > MOST_THREADS:
            return None
        for thread in threads:
            try:
                status = _read(PROC / str(pid) / "task" / thread / "status", _LONGEST_STATUS)
            except (FileNotFoundError, ProcessLookupError):
                continue
            switches[int(thread)] = parse_switches(status, kinds)
    return switches


def read_wakeups(pids: Iterable[int]) -> Mapping[int, int] | None:
    """Return how often each living thread of these processes has gone to sleep by itself, and so been woken again; None
    when there are more than MOST_THREADS. A guest's processor that halts under KVM is such a thread."""
    return read_switches(pids, (_VOLUNTARY,))


def parse_switches(status: bytes, kinds: tuple[bytes, ...] = (_VOLUNTARY, _FORCED)) -> int:
    """Return the context switches, voluntary or not, of a thread's status file (proc(5))."""
    return sum(int(line.rpartition(b":")[2]) for line in status.splitlines() if line.startswith(kinds))


def read_host_counts() -> HostCounts:
    """Read what the host has counted."""
    return parse_host_counts(_read(PROC / "stat", _LONGEST_STAT))


def parse_host_counts(stat: bytes) -> HostCounts:
    """Return the counts of /proc/stat (proc(5)): the first number of ``intr`` is the sum of all interrupts."""
    first = {line.split(None, 1)[0]: line.split(None, 2)[1] for line in stat.splitlines() if b" " in line}
    return HostCounts(int(first[b"intr"]), int(first[b"ctxt"]))


def _read(path: Path, most_bytes: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        return file.read(most_bytes) or b""


def sort_exits(statistics: Mapping[str, int]) -> Mapping[str, int] | None:
    """Return exits by reason, with TOTAL and OTHER, from KVM's statistics of one processor of a guest; None when they
    have no total."""
    if TOTAL not in statistics:
        return None
    by_reason = {reason: statistics[name] for name, reason in REASONS.items() if name in statistics}
    rest = statistics[TOTAL] - sum(by_reason.values())
    return {TOTAL: statistics[TOTAL], **by_reason, OTHER: max(0, rest)}


def add_exits(counted: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    """Return the sums over several processors or instances, by reason."""
    sums: dict[str, int] = {}
    for one in counted:
        for reason, count in one.items():
            sums[reason] = sums.get(reason, 0) + count
    return sums


def count_switches(before: Mapping[int, int], after: Mapping[int, int]) -> int:
    """Return the context switches between two readings, of the threads that lived at the second one.

    A thread that has another's number counts from its beginning.
    """
    return sum(
        count - earlier if (earlier := before.get(thread, 0)) <= count else count for thread, count in after.items()
    )
