"""Watches what disturbs a trial while it runs, and what its own limits hold back.

A reading is taken where a trial begins and where it ends, outside of what is timed. What counts as noise is what the
experiment does not cause itself: processor time that the hypervisor below gave to others (steal), that other programs
of this host used, and waiting of all tasks for memory or the disk (PSI, Documentation/accounting/psi.rst). Pressure on
the processors is recorded and not judged: the load itself causes it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import Struct, field

from runtime.cgroups import Cgroup, Throttling, sum_throttling
from runtime.output import printable
from testbed.host.facts import is_domain_0
from testbed.sample import HostReading, compute_steal, read_host

PROC = Path("/proc")
# Above these a trial is said to have been disturbed: fractions of all processors' time, and of the window.
STEAL_LIMIT = 0.01
FOREIGN_LIMIT = 0.05
PRESSURE_LIMITS = {"memory": (0.01, "memory"), "io": (0.10, "the disk")}
_INIT = 1  # waits for everybody's orphans: what they used is not counted in it
# include/linux/sched.h: PF_KTHREAD. What the kernel does is done for the experiment, too.
_KERNEL_THREAD = 0x00200000


class Process(Struct, frozen=True):
    """A process of somebody else's: ``ticks`` of processor time, with those of its children that it has waited for."""

    command: str
    parent: int
    started: int
    ticks: int


class Moment(Struct, frozen=True):
    """The host at a moment: its counters, other programs by pid, and microseconds of pressure by resource."""

    host: HostReading
    others: Mapping[int, Process]
    pressure_usec: Mapping[str, int]


class Observation(Struct, frozen=True):
    """What a trial's window shows: ``figures`` are fractions (0 to 1) but for ``began_s``, when it began by the host's
    monotonic clock, and ``took_s``; ``disturbances`` are a sentence each."""

    figures: Mapping[str, float]
    disturbances: tuple[str, ...]


def parse_process(stat: str) -> tuple[Process, bool]:
    """Return a process from /proc/PID/stat (proc(5)), and whether it is the kernel's."""
    before, _, after = stat.rpartition(")")
    fields = after.split()
    waited_for = 0 if before.startswith(f"{_INIT} ") else int(fields[13]) + int(fields[14])
    ticks = int(fields[11]) + int(fields[12]) + waited_for
    command = before.partition("(")[2]
    return Process(command, int(fields[1]), int(fields[19]), ticks), bool(int(fields[6]) & _KERNEL_THREAD)


def read_other_processes(own: int, cgroup: str) -> dict[int, Process]:
    """Return every process but the kernel's, ``own`` and what descends from it, and those in or below ``cgroup``."""
    others: dict[int, Process] = {}
    for name in os.listdir(PROC):
        if name.isdigit():
            with suppress(OSError):  # it has just ended
                process, of_kernel = parse_process((PROC / name / "stat").read_text(errors="replace"))
                if not of_kernel:
                    others[int(name)] = process

    def is_ours(pid: int) -> bool:
        while pid in others and pid != own:
            pid = others[pid].parent
        return pid == own

    return {pid: process for pid, process in others.items() if not is_ours(pid) and not _is_in(pid, cgroup)}


def _is_in(pid: int, cgroup: str) -> bool:
    if cgroup:
        with suppress(OSError):
            lines = (PROC / str(pid) / "cgroup").read_text().splitlines()
            return any(f"{line}/".partition(":/")[2].startswith(f"{cgroup}/") for line in lines)
    return False


def count_foreign_ticks(before: Mapping[int, Process], after: Mapping[int, Process]) -> Counter[str]:
    """Return the clock ticks that other programs used between two moments, by command.

    A process that ended meanwhile is in its parent's account then, with all that it ever used.
    """

    def is_still(pid: int) -> bool:
        return pid in after and after[pid].started == before[pid].started

    inherited: Counter[int] = Counter()
    for pid, process in before.items():
        if not is_still(pid):
            heir = process.parent
            while heir in before and not is_still(heir):  # it ended too, and passed on what it had
                heir = before[heir].parent
            inherited[heir] += process.ticks
    spent: Counter[str] = Counter()
    for pid, process in after.items():
        begun = before[pid].ticks if pid in before and is_still(pid) else 0
        used = process.ticks - begun - (inherited[pid] if pid != _INIT else 0)
        if used > 0:
            spent[process.command] += used
    return spent


def read_pressure_usec() -> dict[str, int]:
    """Read how long since boot tasks waited: for a processor some, for memory or the disk all. Empty without PSI."""
    pressures: dict[str, int] = {}
    for resource, kind in (("cpu", "some"), ("memory", "full"), ("io", "full")):
        with suppress(OSError, ValueError):
            lines = dict(line.split(" ", 1) for line in (PROC / "pressure" / resource).read_text().splitlines())
            pressures[resource] = int(lines.get(kind, "total=0").rpartition("total=")[2])
    return pressures


def read_moment(cgroup: str = "", own: int = 0) -> Moment:
    """Return the host now; what is in ``cgroup`` and what descends from the process ``own`` (0: this one) is ours."""
    return Moment(read_host(), read_other_processes(own or os.getpid(), cgroup), read_pressure_usec())


def compare(before: Moment, after: Moment, *, pressed: bool = False, gives_time: bool = False) -> Observation:
    """Return what two moments show of the time between them. ``pressed``: the experiment itself made tasks wait for
    memory and the disk, which is no disturbance then. ``gives_time``: the hypervisor below runs the experiment's own
    guests, so what it gives to others is theirs."""
    elapsed_s = max((after.host.t_ns - before.host.t_ns) / 1e9, 1e-9)
    total_ticks = max(after.host.total_ticks - before.host.total_ticks, 1)
    spent = count_foreign_ticks(before.others, after.others)
    figures = {"steal": compute_steal(before.host, after.host), "foreign_cpu": min(spent.total() / total_ticks, 1.0)}
    for resource in sorted(before.pressure_usec.keys() & after.pressure_usec.keys()):
        waited_s = (after.pressure_usec[resource] - before.pressure_usec[resource]) / 1e6
        figures[f"pressure_{resource}"] = min(max(waited_s / elapsed_s, 0.0), 1.0)
    sentences = []
    if figures["steal"] > STEAL_LIMIT and not gives_time:
        sentences.append(f"the hypervisor below gave {figures['steal']:.1%} of the processors' time to others (steal)")
    if figures["foreign_cpu"] > FOREIGN_LIMIT:
        most = ", ".join(printable(command) for command, _ in spent.most_common(3))
        sentences.append(f"other programs used {figures['foreign_cpu']:.0%} of the processors' time ({most})")
    for resource, (limit, what) in PRESSURE_LIMITS.items():
        if not pressed and (part := figures.get(f"pressure_{resource}", 0.0)) > limit:
            sentences.append(f"all tasks waited for {what} {part:.0%} of the time (PSI)")
    return Observation({name: round(value, 4) for name, value in figures.items()}, tuple(sentences))


def find_unattributed(others: float | None, seen: Observation) -> tuple[str, ...]:
    """Return what a window under load shows besides: time that was neither the application's nor the generator's
    (``others``, a fraction; None without such a window), unless other programs explain it."""
    if others is None or max(others - seen.figures.get("foreign_cpu", 0.0), 0.0) <= FOREIGN_LIMIT:
        return ()
    return (f"neither application nor generator used {others:.0%} of the processors' time under load",)


class Watch(Struct):
    """Watches trials, one after the other; what is in ``cgroup``, and what descends from the process ``own`` (0: this
    one), is the experiment's own."""

    cgroup: str = ""
    own: int = 0
    _begun: Moment | None = None
    _running: dict[str, tuple[Cgroup, Throttling]] = field(default_factory=dict)
    _counted: list[Throttling] = field(default_factory=list)

    def begin(self) -> None:
        """Begin to watch a trial."""
        self._counted.clear()
        self._begun = read_moment(self.cgroup, self.own)

    @property
    def begun(self) -> bool:
        """Whether a trial is being watched."""
        return self._begun is not None

    def pause(self) -> None:
        """Watch nothing until the next trial begins."""
        self._begun = None

    def running(self, cgroups: Iterable[Cgroup]) -> None:
        """Count instances with these cgroups as taking part from now on."""
        self._running |= {cgroup.name: (cgroup, Throttling()) for cgroup in cgroups}

    def stopping(self, cgroups: Iterable[Cgroup]) -> None:
        """Read the counts of these cgroups, which are about to be removed."""
        for cgroup in cgroups:
            self._count(cgroup.name)
            self._running.pop(cgroup.name, None)

    def end(self, *, pressed: bool = False) -> Observation:
        """Return what the trial's window shows (``pressed`` as ``compare`` has it); the next one begins."""
        assert self._begun is not None, "a trial ends that has not begun"
        for name in self._running:
            self._count(name)
        after = read_moment(self.cgroup, self.own)
        seen, counted = compare(self._begun, after, pressed=pressed, gives_time=is_domain_0()), tuple(self._counted)
        began_ns, ended_ns = self._begun.host.t_ns, after.host.t_ns
        times = {"began_s": round(began_ns / 1e9, 3), "took_s": round((ended_ns - began_ns) / 1e9, 3)}
        seen = Observation({**seen.figures, **times}, seen.disturbances)
        self._begun = after
        self._counted.clear()
        held_back = sum_throttling(counted)
        if not held_back.periods:
            return seen
        figures = {
            "throttled_periods": round(held_back.fraction, 4),
            "throttled_s": round(held_back.throttled_ns / 1e9, 4),
        }
        return Observation({**seen.figures, **figures}, seen.disturbances)

    def _count(self, name: str) -> None:
        """Add what has been counted of a cgroup since it was counted last."""
        cgroup, before = self._running[name]
        with suppress(OSError):  # it has ended by itself
            now = cgroup.throttling()
            self._running[name] = (cgroup, now)
            self._counted.append(now.since(before))
