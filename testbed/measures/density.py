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
from time import process_time, sleep

from msgspec import Struct
from msgspec.structs import astuple, replace

from runtime.cgroups import sum_throttling
from runtime.errors import TestbedError, WorkloadError
from testbed import breakdown
from testbed.lab import PORTS_LIMIT
from testbed.load.open_loop import OfferedLoad, Target, merge, run_loads
from testbed.measures.application import Application, list_targets
from testbed.measures.context import LOAD_ATTEMPTS, RunContext
from testbed.measures.level import AGAIN_WARMUP_S, CONFIDENCE, MOST_WINDOWS, Judged, judge, wants_another
from testbed.measures.schedule import PlannedTrial
from testbed.measures.steps import (
    Look,
    Point,
    Processors,
    is_power_of_two,
    list_parts,
    make_metrics,
    make_part_metrics,
    make_point,
    make_window,
)
from testbed.results import INSTANCES_OF_STEP, PARTS_OF_STEPS, Outcome, Trial
from testbed.sample import read_host, read_usage
from testbed.sampler.records import COLUMNS, Row, tabulate
from testbed.sampler.sampler import Sampler
from testbed.scenario.model import Scenario, Settings

# What the host itself must keep, whatever is measured.
RESERVE_BYTES = 512 << 20
# What a service may take that has no memory limit: unknown, so careful.
UNLIMITED_BYTES = 1 << 30
# More than the applications of a ramp times what tells their steps apart.
SEEDS_OF_A_LOOK = 100_000_000


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
    context.folder.write_samples(f"{name}{INSTANCES_OF_STEP}", COLUMNS, tabulate(ramp.rows))
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


class _Ramp:
    """The ramp under way: ``applications`` holds what runs, ``points`` what was seen at each step, ``rows`` what was
    sampled in the last window."""

    def __init__(self, context: RunContext, planned: PlannedTrial, applications: ExitStack) -> None:
        self._context = context
        self._planned = planned
        self._undo = applications
        self._running: list[Application] = []
        self.points: list[Point] = []
        self.rows: tuple[Row, ...] = ()
        self._told: set[str] = set()
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
        looks: list[Look] = []
        slo = self._context.settings.slo
        while not looks or wants_another([look.window for look in looks], slo):
            look = self._look(len(looks))
            if look.load.late:
                return Stop(look.load.reason, "void")
            looks.append(look)
        judged = judge([look.window for look in looks], slo)
        point = self._point(looks, judged)
        self.points.append(point)
        shown = f"started in {point.start_s:.2f} s, p50 {point.p50_ms:.1f} ms"
        self._context.progress(f"  {point.applications} running: {shown}, {judged.verdict}: {judged.reason}")
        if judged.verdict == "broke":
            return Stop(f"slo: {judged.reason}")
        self._verdict = "; held there" if judged.verdict == "held" else f"; undecided there: {judged.reason}"
        return None

    def _look(self, number: int) -> Look:
        """Return what one window of load saw; a late generator has further attempts at it."""
        for attempt in range(LOAD_ATTEMPTS):
            look = self._load(number * LOAD_ATTEMPTS + attempt)
            if not look.load.late:
                break
        return look

    def _load(self, number: int) -> Look:
        """Load all applications at once; the warm-up of the first time is for the newest to settle."""
        settings = self._context.settings
        load, density = settings.load, settings.density
        before: list[Processors] = []
        seeds = number * SEEDS_OF_A_LOOK + len(self._running) * 1000

        def begin() -> None:
            before.append(self._processors())
            undo.enter_context(sampler)

        with ExitStack() as undo:
            sampler = Sampler(list_targets(self._running))
            undo.callback(sampler.close)
            result = merge(
                run_loads(
                    [
                        OfferedLoad(
                            Target(application.addresses[load.service], load.port, load.kinds),
                            density.rate_per_s,
                            density.window_s,
                            load.connections,
                            self._context.arrival_seed(self._planned.block, seeds + index),
                            warmup_s=min(density.settle_s, AGAIN_WARMUP_S) if number else density.settle_s,
                        )
                        for index, application in enumerate(self._running)
                    ],
                    started=begin,
                )
            )
            after = self._processors()
        self._tell_unread(sampler.sampling.unread)
        self.rows = sampler.sampling.rows
        window = make_window(result, settings.slo.p99_ms)
        return Look(result, window, before[0], after, sampler.sampling)

    def _tell_unread(self, unread: Sequence[str]) -> None:
        """Say once in a ramp what could not be sampled."""
        for what in unread:
            if (name := what.partition(":")[0]) not in self._told:
                self._told.add(name)
                self._context.progress(f"  not sampled: {what}")

    def _processors(self) -> Processors:
        cgroups = [cgroup for one in self._running for cgroup in one.cgroups().values()]
        used_ns = sum(cgroup.cpu_usage_ns() for cgroup in cgroups)
        held_back = sum_throttling(cgroup.throttling() for cgroup in cgroups)
        return Processors(read_host(), used_ns / 1e9, process_time(), held_back)

    def _point(self, looks: Sequence[Look], judged: Judged) -> Point:
        readings = [read_usage(cgroup) for application in self._running for cgroup in application.cgroups().values()]
        timeline = self._running[-1].timeline
        start_s = (timeline.ready_ns - timeline.requested_ns) / 1e9
        return make_point(len(self._running), readings, read_host(), looks, judged, start_s)


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
