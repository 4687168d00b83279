"""Density: how many copies of the application fit, and what memory each one takes.

Applications are added one at a time, all of them under a low load, until the service level breaks, the host's
memory runs short, or a stated cap is reached. Memory is read three ways (see testbed.sample) after each step: what the
first application takes, and what each further one adds (see testbed.copies). At the end of the ramp, while all run, it
is broken down by what it is used for (see testbed.breakdown).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, suppress
from statistics import fmean
from time import process_time, sleep

from msgspec import Struct
from msgspec.structs import astuple

from runtime.cgroups import Throttling, sum_throttling
from runtime.errors import TestbedError, WorkloadError
from testbed import breakdown
from testbed.copies import RULERS, first_bytes, further_bytes
from testbed.lab import PORTS_LIMIT
from testbed.load.open_loop import LoadResult, OfferedLoad, Target, merge, run_loads
from testbed.measures.application import Application
from testbed.measures.context import LOAD_ATTEMPTS, RunContext
from testbed.measures.schedule import PlannedTrial
from testbed.results import THROTTLED_PERIODS, Metric, Outcome, Trial
from testbed.sample import HostReading, compute_shares, compute_utilisation, read_host, read_usage
from testbed.scenario.model import Scenario, Settings, Slo

# What the host itself must keep, whatever is measured.
RESERVE_BYTES = 512 << 20
# What a service may take that has no memory limit: unknown, so careful.
UNLIMITED_BYTES = 1 << 30


class Point(Struct, frozen=True):
    """One step of the ramp, and a row of the samples: so many applications, after a window of load.

    ``available_bytes`` is the host's MemAvailable; ``host_utilisation`` a fraction (0 to 1) over the window, and
    ``host_others`` the part of it that was neither application nor generator. ``throttled_periods`` is the fraction of
    the instances' periods in which their quota of processor time held them back.
    """

    applications: int
    cgroup_bytes: int
    pss_bytes: int
    available_bytes: int
    p99_ms: float
    error_fraction: float
    host_utilisation: float
    host_others: float
    throttled_periods: float = 0.0


class Stop(Struct, frozen=True):
    """Why the ramp ended, and what that makes of the trial."""

    reason: str
    outcome: Outcome = "ok"


def measure(context: RunContext, planned: PlannedTrial) -> Generator[Trial, None, None]:
    """Add applications until one of the limits. Raises WorkloadError when not even the first one starts."""
    with ExitStack() as applications:
        ramp = _Ramp(context, planned, applications)
        stop = ramp.run()
    context.progress(f"  {ramp.within_slo} applications ({stop.reason})")
    header = list(Point.__struct_fields__)
    yield Trial(
        planned.trial,
        planned.block,
        planned.platform,
        planned.measure,
        stop.outcome,
        stop.reason,
        {"rate_per_s": context.settings.density.rate_per_s, "cap": ramp.cap},
        (*make_metrics(ramp.within_slo, ramp.points), *make_part_metrics(ramp.parts, len(ramp.points) - 1)),
        context.folder.write_samples(f"t{planned.trial:03}", header, [astuple(point) for point in ramp.points]),
    )


class _Processors(Struct, frozen=True):
    """The host at a moment, with the CPU seconds that all applications and this process have used by then, and what
    quotas have held back of the applications."""

    host: HostReading
    applications_s: float
    own_s: float
    held_back: Throttling


class _Ramp:
    """The ramp under way: ``applications`` holds what runs, ``points`` what was seen at each step."""

    def __init__(self, context: RunContext, planned: PlannedTrial, applications: ExitStack) -> None:
        self._context = context
        self._planned = planned
        self._undo = applications
        self._running: list[Application] = []
        self.points: list[Point] = []
        self.parts: Mapping[str, int] = {}
        self.within_slo = 0
        self._platform = context.platforms[planned.platform]
        self.cap = count_most_applications(
            context.settings, 1 if self._platform.shared else len(context.scenario.services)
        )

    def run(self) -> Stop:
        """Add applications until something says stop, and see what all of them hold then."""
        stop = self._grow()
        with suppress(OSError, TestbedError):  # an instance has ended, which may be what ended the ramp
            self.parts = breakdown.sum_parts(
                self._platform.memory_parts(instance)
                for application in self._running[: len(self.points) - 1]
                for instance in application.instances
            )
        return stop

    def _grow(self) -> Stop:
        sleep(self._context.settings.density.settle_s)  # the host gives back what the trial before had taken
        before = read_host()
        self.points.append(Point(0, 0, 0, before.available_bytes, 0.0, 0.0, 0.0, 0.0))
        need_bytes = application_bytes(self._context.scenario)
        while True:
            if stop := find_limit(len(self._running), self.cap, read_host().available_bytes, need_bytes):
                return stop
            try:
                self._add()
            except WorkloadError as error:
                if not self._running:
                    raise
                return Stop(f"start: {error.message}")
            if stop := self._step():
                return stop
            self.within_slo = len(self._running)

    def _add(self) -> None:
        number = len(self._running)
        application = Application(self._context, self._platform, number, f"t{self._planned.trial:03}-a{number}")
        self._running.append(self._undo.enter_context(application))
        for instance in application.instances:
            self._platform.reclaim(instance)

    def _step(self) -> Stop | None:
        """Load all applications, read their memory, and judge the service level."""
        for _ in range(LOAD_ATTEMPTS):
            result, before, after = self._load()
            if not result.late:
                break
        else:
            return Stop(result.reason, "void")
        point = self._point(result, before, after)
        self.points.append(point)
        shown = f"p99 {point.p99_ms:.1f} ms, errors {point.error_fraction:.1%}"
        self._context.progress(f"  {point.applications} running: {shown}")
        if reason := find_broken_level(point, self._context.settings.slo):
            return Stop(reason)
        return None

    def _load(self) -> tuple[LoadResult, _Processors, _Processors]:
        """Return the load on all applications at once; its warm-up is the time for the newest to settle."""
        settings = self._context.settings
        load, density = settings.load, settings.density
        before: list[_Processors] = []
        results = run_loads(
            [
                OfferedLoad(
                    Target(application.addresses[load.service], load.port, load.kinds),
                    density.rate_per_s,
                    density.window_s,
                    load.connections,
                    self._context.arrival_seed(self._planned.block, len(self._running) * 1000 + number),
                    warmup_s=density.settle_s,
                )
                for number, application in enumerate(self._running)
            ],
            started=lambda: before.append(self._processors()),
        )
        return merge(results), before[0], self._processors()

    def _processors(self) -> _Processors:
        cgroups = [cgroup for one in self._running for cgroup in one.cgroups().values()]
        used_ns = sum(cgroup.cpu_usage_ns() for cgroup in cgroups)
        held_back = sum_throttling(cgroup.throttling() for cgroup in cgroups)
        return _Processors(read_host(), used_ns / 1e9, process_time(), held_back)

    def _point(self, result: LoadResult, before: _Processors, after: _Processors) -> Point:
        readings = [read_usage(cgroup) for application in self._running for cgroup in application.cgroups().values()]
        return Point(
            applications=len(self._running),
            cgroup_bytes=sum(reading.cgroup_bytes for reading in readings),
            pss_bytes=sum(reading.pss_bytes for reading in readings),
            available_bytes=read_host().available_bytes,
            p99_ms=result.p99_s * 1e3,
            error_fraction=result.error_fraction,
            host_utilisation=compute_utilisation(before.host, after.host),
            host_others=compute_shares(
                before.host,
                after.host,
                after.applications_s - before.applications_s,
                result.generator_cpu_s + after.own_s - before.own_s,
            ).others,
            throttled_periods=after.held_back.since(before.held_back).fraction,
        )


def count_most_applications(settings: Settings, ports: int) -> int:
    """Return the scenario's cap, or fewer when the lab's bridge has not ``ports`` ports for each of them."""
    return min(settings.density.cap, PORTS_LIMIT // ports)


def application_bytes(scenario: Scenario) -> int:
    """Return the most memory that one application may take: the sum of its services' limits."""
    limits = [service.resources.memory_bytes for service in scenario.services]
    return sum(UNLIMITED_BYTES if limit is None else limit for limit in limits)


def find_limit(running: int, cap: int, available_bytes: int, need_bytes: int) -> Stop | None:
    """Return why no further application may be added, if so: the cap, or the host's memory."""
    if running >= cap:
        return Stop(f"cap: {cap} applications")
    if available_bytes < need_bytes + RESERVE_BYTES:
        wanted = f"{need_bytes >> 20} MiB for the next application and {RESERVE_BYTES >> 20} MiB in reserve"
        reason = f"memory: {available_bytes >> 20} MiB available, less than {wanted}"
        return Stop(reason, "ok" if running else "failed")
    return None


def find_broken_level(point: Point, slo: Slo) -> str:
    """Return how the service level was broken; empty when it held."""
    if point.error_fraction > slo.error_fraction:
        return f"slo: {point.error_fraction:.1%} of requests failed, more than {slo.error_fraction:.1%}"
    if point.p99_ms > slo.p99_ms:
        return f"slo: p99 {point.p99_ms:.0f} ms, more than {slo.p99_ms:g} ms"
    return ""


def make_part_metrics(parts: Mapping[str, int], applications: int) -> tuple[Metric, ...]:
    """Return what one of so many applications holds on average, ``part_<name>`` in bytes."""
    return tuple(Metric(f"part_{name}", held_bytes / applications, "bytes") for name, held_bytes in parts.items())


def make_metrics(within_slo: int, points: Sequence[Point]) -> tuple[Metric, ...]:
    """Return how many ``applications`` ran within the service level, and their memory in bytes, by ruler: what the
    first one took (``_first``) and the mean of what each further one added (``_further``).

    These are as they were read: one of MemAvailable is below 0 where something else gave memory back meanwhile. The
    step that broke the service level counts, too: its memory is as real. ``host_others`` and
    ``throttled_periods`` are those of the step that had most of it.
    """
    figures = [Metric("applications", within_slo, "1")]
    columns = {name: [float(getattr(point, name)) for point in points] for name in Point.__struct_fields__}
    for ruler in RULERS:
        first, further = first_bytes(columns, ruler), further_bytes(columns, ruler)
        figures += [Metric(f"{ruler}_first", first, "bytes")] if first is not None else []
        figures += [Metric(f"{ruler}_further", fmean(further), "bytes")] if further else []
    for name in ("host_others", THROTTLED_PERIODS):
        figures.append(Metric(name, max(columns[name], default=0.0), "1"))
    return tuple(figures)
