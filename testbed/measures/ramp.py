"""A ramp: copies of the application are added, all of them under load, until something says stop.

Each step is looked at in as many windows of load as a verdict takes (see testbed.measures.level). Memory is read three
ways (see testbed.sample) after each step, and when the number of copies has doubled, and at the end, it is broken down
by what it is used for (see testbed.breakdown). What load each copy has, and how many are added before the next look, is
the measure's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from time import process_time, sleep

from msgspec import Struct
from msgspec.structs import replace

from runtime.cgroups import sum_throttling
from runtime.errors import TestbedError, WorkloadError
from testbed import breakdown
from testbed.lab import PORTS_LIMIT
from testbed.load.arrivals import Schedule
from testbed.load.open_loop import OfferedLoad, Target, merge, run_loads
from testbed.measures import metering
from testbed.measures.application import Application, list_targets
from testbed.measures.context import LOAD_ATTEMPTS, RunContext
from testbed.measures.level import AGAIN_WARMUP_S, Judged, judge, wants_another
from testbed.measures.steps import (
    Look,
    Point,
    Processors,
    is_power_of_two,
    list_parts,
    list_values,
    make_point,
    make_window,
)
from testbed.platforms.protocol import Metered, Platform
from testbed.results import INSTANCES_OF_STEP, PARTS_OF_STEPS, Outcome
from testbed.sample import read_usage, sum_cpu_ns
from testbed.sampler.records import COLUMNS, Row, tabulate
from testbed.sampler.sampler import Sampler
from testbed.scenario.model import Scenario

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


class CopyLoad(Struct, frozen=True):
    """The load on one copy: requests per second on average, and when they are due."""

    rate_per_s: float
    schedule: Schedule = Schedule()


class RampSettings(Struct, frozen=True):
    """How a ramp goes: no more than ``cap`` copies; a pause of ``settle_s`` before each window of ``window_s``.

    ``offer`` returns the load of a copy (counted from 0), None for one that has none; the first copy has one.
    ``grow`` returns how many copies are to run at the next look, given those at the last.
    """

    cap: int
    settle_s: float
    window_s: float
    offer: Callable[[int], CopyLoad | None]
    grow: Callable[[int], int] = lambda running: running + 1


class Ramp:
    """The ramp of a trial under way: ``applications`` holds what runs, ``points`` what was seen at each step, ``rows``
    what was sampled in the last window.

    ``first`` is called with the first copy once it is ready, before it has any load.
    """

    def __init__(
        self,
        context: RunContext,
        platform: Platform,
        settings: RampSettings,
        applications: ExitStack,
        *,
        trial: int,
        block: int,
        first: Callable[[Application], None] = lambda application: None,
    ) -> None:
        self._context = context
        self._platform = platform
        self._settings = settings
        self._undo = applications
        self._trial = trial
        self._block = block
        self._first = first
        self._running: list[Application] = []
        self.points: list[Point] = []
        self.rows: tuple[Row, ...] = ()
        self._told: set[str] = set()
        self.parts: dict[int, Mapping[str, int]] = {}
        self.within_slo = 0
        self._verdict = ""

    def run(self) -> Stop:
        """Add applications until something says stop, and see what all that were looked at hold then.

        Raises WorkloadError when not even the first one starts.
        """
        stop = self._grow()
        if self.points[-1].applications:
            self._break_down(self.points[-1].applications)
        return stop

    def write(self) -> str:
        """Write what was seen to the run folder; return the name of the steps' file (see docs/run-folder.md)."""
        folder, name = self._context.folder, f"t{self._trial:03}"
        folder.write_samples(f"{name}{PARTS_OF_STEPS}", ("applications", "part", "bytes"), list_parts(self.parts))
        folder.write_samples(f"{name}{INSTANCES_OF_STEP}", COLUMNS, tabulate(self.rows))
        return folder.write_samples(name, list(Point.__struct_fields__), [list_values(point) for point in self.points])

    def _break_down(self, count: int) -> None:
        """Record what the first ``count`` applications hold, by part, unless one of their instances has ended."""
        if count not in self.parts:
            with suppress(OSError, TestbedError):
                self.parts[count] = breakdown.sum_parts(
                    self._platform.memory_parts(instance)
                    for application in self._running[:count]
                    for instance in application.instances
                )

    def _grow(self) -> Stop:
        sleep(self._settings.settle_s)  # the host gives back what the trial before had taken
        before = metering.read_host(self._platform)
        self.points.append(self._metered(Point(0, 0, 0, before.available_bytes, 0.0, 0.0, 0.0, 0.0)))
        while True:
            stop = self._add_up_to(self._settings.grow(len(self._running)))
            if len(self._running) > self.within_slo:
                if broke := self._step():
                    return broke
                self.within_slo = len(self._running)
                if is_power_of_two(self.within_slo):
                    self._break_down(self.within_slo)
            if stop is not None:
                return stop if stop.reason.startswith("start") else replace(stop, reason=stop.reason + self._verdict)

    def _add_up_to(self, count: int) -> Stop | None:
        """Add applications until so many run; return why no more of them may."""
        need_bytes = application_bytes(self._context.scenario)
        while len(self._running) < count:
            if stop := find_limit(len(self._running), self._settings.cap, self._available_bytes(), need_bytes):
                return stop
            try:
                self._add()
            except WorkloadError as error:
                if not self._running:
                    raise
                return Stop(f"start: {error.message}")
        return None

    def _available_bytes(self) -> int:
        return metering.read_host(self._platform).available_bytes

    def _add(self) -> None:
        number = len(self._running)
        application = Application(self._context, self._platform, number, f"t{self._trial:03}-a{number}")
        self._running.append(self._undo.enter_context(application))
        for instance in application.instances:
            self._platform.reclaim(instance)
        if number == 0:
            self._first(application)

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
        before: list[Processors] = []

        def begin() -> None:
            before.append(self._processors())
            undo.enter_context(sampler)

        with ExitStack() as undo:
            sampler = Sampler(list_targets(self._running))
            undo.callback(sampler.close)
            result = merge(run_loads(self._list_loads(number), started=begin))
            after = self._processors()
        self._tell_unread(sampler.sampling.unread)
        self.rows = sampler.sampling.rows
        window = make_window(result, self._context.settings.slo.p99_ms)
        return Look(result, window, before[0], after, sampler.sampling)

    def _list_loads(self, number: int) -> list[OfferedLoad]:
        """Return the loads of a step's window, which are counted from 0: of those applications that have any."""
        load, settings = self._context.settings.load, self._settings
        seeds = number * SEEDS_OF_A_LOOK + len(self._running) * 1000
        offers = [(index, one, settings.offer(index)) for index, one in enumerate(self._running)]
        return [
            OfferedLoad(
                Target(application.addresses[load.service], load.port, load.kinds),
                offer.rate_per_s,
                settings.window_s,
                load.connections,
                self._context.arrival_seed(self._block, seeds + index),
                warmup_s=min(settings.settle_s, AGAIN_WARMUP_S) if number else settings.settle_s,
                schedule=offer.schedule,
            )
            for index, application, offer in offers
            if offer is not None
        ]

    def _tell_unread(self, unread: Sequence[str]) -> None:
        """Say once in a ramp what could not be sampled."""
        for what in unread:
            if (name := what.partition(":")[0]) not in self._told:
                self._told.add(name)
                self._context.progress(f"  not sampled: {what}")

    def _processors(self) -> Processors:
        used_ns = sum_cpu_ns(meter for one in self._running for meter in one.meters().values())
        held_back = sum_throttling(cgroup.throttling() for one in self._running for cgroup in one.cgroups().values())
        return Processors(metering.read_host(self._platform), used_ns / 1e9, process_time(), held_back)

    def _point(self, looks: Sequence[Look], judged: Judged) -> Point:
        readings = [read_usage(cgroup) for application in self._running for cgroup in application.cgroups().values()]
        timeline = self._running[-1].timeline
        start_s = (timeline.ready_ns - timeline.requested_ns) / 1e9
        host = metering.read_host(self._platform)
        return self._metered(make_point(len(self._running), readings, host, looks, judged, start_s))

    def _metered(self, point: Point) -> Point:
        """Return a step, whose memory is what has the instances counts where no cgroup has them."""
        if not isinstance(self._platform, Metered):
            return point
        held_bytes = sum(meter.memory_bytes() for one in self._running for meter in one.meters().values())
        return replace(point, cgroup_bytes=None, pss_bytes=None, metered_bytes=held_bytes)


def count_ports(scenario: Scenario, platform: Platform) -> int:
    """Return how many ports of the lab's bridge a copy takes."""
    return 1 if platform.shared else len(scenario.services)


def count_most_applications(cap: int, ports: int) -> int:
    """Return the cap, or fewer when the lab's bridge has not ``ports`` ports for each of them."""
    return min(cap, PORTS_LIMIT // ports)


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
