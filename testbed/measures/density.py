"""Density: how many copies of the application fit, and what memory each one takes.

Applications are added one at a time, all of them under a low load, until the service level breaks, the host's
memory runs short, or a stated cap is reached. Each step is looked at in as many windows of load as a verdict takes (see
testbed.measures.level). Memory is read three ways (see testbed.sample) after each step: what the first application
takes, and what each further one adds (see testbed.copies). When their number has doubled, and at the end, it is broken
down by what it is used for (see testbed.breakdown).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, suppress
from statistics import fmean
from time import process_time, sleep
from typing import Literal

from msgspec import Struct
from msgspec.structs import astuple, replace

from runtime.cgroups import Throttling, sum_throttling
from runtime.errors import TestbedError, WorkloadError
from testbed import breakdown
from testbed.copies import RULERS, first_bytes, further_bytes
from testbed.lab import PORTS_LIMIT
from testbed.load.open_loop import LoadResult, OfferedLoad, Target, merge, run_loads
from testbed.measures.application import Application
from testbed.measures.context import LOAD_ATTEMPTS, RunContext
from testbed.measures.level import CONFIDENCE, MOST_WINDOWS, Judged, Verdict, Window, count_slower, judge, wants_another
from testbed.measures.schedule import PlannedTrial
from testbed.results import PARTS_OF_STEPS, THROTTLED_PERIODS, Metric, Outcome, Trial
from testbed.sample import HostReading, compute_shares, compute_utilisation, read_host, read_usage
from testbed.scenario.model import Scenario, Settings

# What the host itself must keep, whatever is measured.
RESERVE_BYTES = 512 << 20
# What a service may take that has no memory limit: unknown, so careful.
UNLIMITED_BYTES = 1 << 30
# A step that is looked at again has been under this load already: the connections are new, and no more.
AGAIN_WARMUP_S = 1.0
# More than the applications of a ramp times what tells their steps apart.
SEEDS_OF_A_LOOK = 100_000_000


class Point(Struct, frozen=True):
    """One step of the ramp, and a row of the samples: so many applications, under load in one window or several.

    ``available_bytes`` is the host's MemAvailable; ``host_utilisation`` a fraction (0 to 1) of the windows, and
    ``host_others`` the part of it that was neither application nor generator. ``throttled_periods`` is the fraction of
    the instances' periods in which their quota of processor time held them back.

    ``start_s`` is what the newest application took from its request until it was ready, beside all the others.
    ``requests`` have a latency, of these ``slow`` are above the service level's limit, a fraction that lies between
    ``slow_low`` and ``slow_high`` (testbed.measures.level); ``p50_ms`` and ``p99_ms`` are theirs. ``windows`` is how
    often the step was looked at.
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
    p50_ms: float = 0.0
    start_s: float = 0.0
    requests: int = 0
    slow: int = 0
    slow_low: float = 0.0
    slow_high: float = 1.0
    windows: int = 0
    verdict: Verdict | Literal[""] = ""


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
    name = f"t{planned.trial:03}"
    context.folder.write_samples(f"{name}{PARTS_OF_STEPS}", ("applications", "part", "bytes"), list_parts(ramp.parts))
    yield Trial(
        planned.trial,
        planned.block,
        planned.platform,
        planned.measure,
        stop.outcome,
        stop.reason,
        {
            "rate_per_s": context.settings.density.rate_per_s,
            "cap": ramp.cap,
            "most_windows": MOST_WINDOWS,
            "confidence": CONFIDENCE,
        },
        (*make_metrics(ramp.within_slo, ramp.points), *make_part_metrics(ramp.parts)),
        context.folder.write_samples(name, list(Point.__struct_fields__), [astuple(point) for point in ramp.points]),
    )


class _Processors(Struct, frozen=True):
    """The host at a moment, with the CPU seconds that all applications and this process have used by then, and what
    quotas have held back of the applications."""

    host: HostReading
    applications_s: float
    own_s: float
    held_back: Throttling


class _Look(Struct, frozen=True):
    """One window of load on a step, with the host's state on either side of it."""

    load: LoadResult
    window: Window
    before: _Processors
    after: _Processors

    @property
    def others(self) -> float:
        """The fraction (0 to 1) of the host that neither application nor generator used."""
        before, after = self.before, self.after
        applications_s = after.applications_s - before.applications_s
        own_s = self.load.generator_cpu_s + after.own_s - before.own_s
        return compute_shares(before.host, after.host, applications_s, own_s).others


class _Ramp:
    """The ramp under way: ``applications`` holds what runs, ``points`` what was seen at each step."""

    def __init__(self, context: RunContext, planned: PlannedTrial, applications: ExitStack) -> None:
        self._context = context
        self._planned = planned
        self._undo = applications
        self._running: list[Application] = []
        self.points: list[Point] = []
        self.parts: dict[int, Mapping[str, int]] = {}
        self.within_slo = 0
        self._verdict = ""
        self._platform = context.platforms[planned.platform]
        self.cap = count_most_applications(
            context.settings, 1 if self._platform.shared else len(context.scenario.services)
        )

    def run(self) -> Stop:
        """Add applications until something says stop, and see what all that were looked at hold then."""
        stop = self._grow()
        self._break_down(len(self.points) - 1)
        return stop

    def _break_down(self, count: int) -> None:
        """Record what the first ``count`` applications hold, by part, unless one of their instances has ended."""
        if count and count not in self.parts:
            with suppress(OSError, TestbedError):
                self.parts[count] = breakdown.sum_parts(
                    self._platform.memory_parts(instance)
                    for application in self._running[:count]
                    for instance in application.instances
                )

    def _grow(self) -> Stop:
        sleep(self._context.settings.density.settle_s)  # the host gives back what the trial before had taken
        before = read_host()
        self.points.append(Point(0, 0, 0, before.available_bytes, 0.0, 0.0, 0.0, 0.0))
        need_bytes = application_bytes(self._context.scenario)
        while True:
            if stop := find_limit(len(self._running), self.cap, read_host().available_bytes, need_bytes):
                return replace(stop, reason=stop.reason + self._verdict)
            try:
                self._add()
            except WorkloadError as error:
                if not self._running:
                    raise
                return Stop(f"start: {error.message}")
            if stop := self._step():
                return stop
            self.within_slo = len(self._running)
            if is_power_of_two(self.within_slo):
                self._break_down(self.within_slo)

    def _add(self) -> None:
        number = len(self._running)
        application = Application(self._context, self._platform, number, f"t{self._planned.trial:03}-a{number}")
        self._running.append(self._undo.enter_context(application))
        for instance in application.instances:
            self._platform.reclaim(instance)

    def _step(self) -> Stop | None:
        """Load all applications in as many windows as a verdict takes, and read their memory."""
        looks: list[_Look] = []
        slo = self._context.settings.slo
        while not looks or wants_another([look.window for look in looks], slo):
            look = self._look(len(looks))
            if look.load.late:
                return Stop(look.load.reason, "void")
            looks.append(look)
        judged = judge([look.window for look in looks], slo)
        point = self._point(looks, judged)
        self.points.append(point)
        shown = f"p99 {point.p99_ms:.1f} ms, errors {point.error_fraction:.1%}"
        self._context.progress(f"  {point.applications} running: {shown}, {judged.verdict}: {judged.reason}")
        if judged.verdict == "broke":
            return Stop(f"slo: {judged.reason}")
        self._verdict = "; held there" if judged.verdict == "held" else f"; undecided there: {judged.reason}"
        return None

    def _look(self, number: int) -> _Look:
        """Return what one window of load saw; a late generator has further attempts at it."""
        for attempt in range(LOAD_ATTEMPTS):
            look = self._load(number * LOAD_ATTEMPTS + attempt)
            if not look.load.late:
                break
        return look

    def _load(self, number: int) -> _Look:
        """Load all applications at once; the warm-up of the first time is for the newest to settle."""
        settings = self._context.settings
        load, density = settings.load, settings.density
        before: list[_Processors] = []
        seeds = number * SEEDS_OF_A_LOOK + len(self._running) * 1000
        result = merge(
            run_loads(
                [
                    OfferedLoad(
                        Target(application.addresses[load.service], load.port, load.method, load.path),
                        density.rate_per_s,
                        density.window_s,
                        load.connections,
                        self._context.arrival_seed(self._planned.block, seeds + index),
                        warmup_s=min(density.settle_s, AGAIN_WARMUP_S) if number else density.settle_s,
                    )
                    for index, application in enumerate(self._running)
                ],
                started=lambda: before.append(self._processors()),
            )
        )
        return _Look(result, make_window(result, settings.slo.p99_ms), before[0], self._processors())

    def _processors(self) -> _Processors:
        cgroups = [cgroup for one in self._running for cgroup in one.cgroups().values()]
        used_ns = sum(cgroup.cpu_usage_ns() for cgroup in cgroups)
        held_back = sum_throttling(cgroup.throttling() for cgroup in cgroups)
        return _Processors(read_host(), used_ns / 1e9, process_time(), held_back)

    def _point(self, looks: Sequence[_Look], judged: Judged) -> Point:
        readings = [read_usage(cgroup) for application in self._running for cgroup in application.cgroups().values()]
        timeline = self._running[-1].timeline
        result = merge([look.load for look in looks])
        return Point(
            applications=len(self._running),
            cgroup_bytes=sum(reading.cgroup_bytes for reading in readings),
            pss_bytes=sum(reading.pss_bytes for reading in readings),
            available_bytes=read_host().available_bytes,
            p99_ms=result.p99_s * 1e3,
            error_fraction=result.error_fraction,
            host_utilisation=fmean(compute_utilisation(look.before.host, look.after.host) for look in looks),
            host_others=fmean(look.others for look in looks),
            throttled_periods=sum_throttling(
                look.after.held_back.since(look.before.held_back) for look in looks
            ).fraction,
            p50_ms=result.p50_s * 1e3,
            start_s=(timeline.ready_ns - timeline.requested_ns) / 1e9,
            requests=sum(look.window.answered for look in looks),
            slow=sum(look.window.slow for look in looks),
            slow_low=judged.slow_low,
            slow_high=judged.slow_high,
            windows=len(looks),
            verdict=judged.verdict,
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


def make_window(result: LoadResult, limit_ms: float) -> Window:
    """Return the counts of a load that its service level is judged by."""
    slow, answered = count_slower(result.latencies, limit_ms), int(result.latencies.get_total_count())
    return Window(answered, slow, result.ok + result.failed, result.failed)


def is_power_of_two(count: int) -> bool:
    """Return whether a number of applications is one of 1, 2, 4, 8 and so on."""
    return count > 0 and count & (count - 1) == 0


def list_parts(parts: Mapping[int, Mapping[str, int]]) -> list[tuple[int, str, int]]:
    """Return the rows of (applications, part, bytes that all of them hold), in the order of the steps."""
    return [(count, name, held_bytes) for count, held in sorted(parts.items()) for name, held_bytes in held.items()]


def make_part_metrics(parts: Mapping[int, Mapping[str, int]]) -> tuple[Metric, ...]:
    """Return what one application holds on average where most were broken down, ``part_<name>`` in bytes."""
    most = max(parts, default=0)
    return tuple(Metric(f"part_{name}", held / most, "bytes") for name, held in parts.get(most, {}).items())


def make_metrics(within_slo: int, points: Sequence[Point]) -> tuple[Metric, ...]:
    """Return how many ``applications`` ran without breaking the service level, of how many it is certain that it held
    (``applications_held``), and their memory in bytes, by ruler: what the first one took (``_first``) and the mean of
    what each further one added (``_further``).

    These are as they were read: one of MemAvailable is below 0 where something else gave memory back meanwhile. The
    step that broke the service level counts, too: its memory is as real. ``host_others`` and
    ``throttled_periods`` are those of the step that had most of it.
    """
    held = max((point.applications for point in points if point.verdict == "held"), default=0)
    figures = [Metric("applications", within_slo, "1"), Metric("applications_held", held, "1")]
    numbers = [name for name in Point.__struct_fields__ if name != "verdict"]
    columns = {name: [float(getattr(point, name)) for point in points] for name in numbers}
    for ruler in RULERS:
        first, further = first_bytes(columns, ruler), further_bytes(columns, ruler)
        figures += [Metric(f"{ruler}_first", first, "bytes")] if first is not None else []
        figures += [Metric(f"{ruler}_further", fmean(further), "bytes")] if further else []
    for name in ("host_others", THROTTLED_PERIODS):
        figures.append(Metric(name, max(columns[name], default=0.0), "1"))
    return tuple(figures)
