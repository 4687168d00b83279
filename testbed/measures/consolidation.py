"""Consolidation: how many lightly used servers fit on this host, and how well it is used then.

A server is a copy of the scenario's whole application, with the load at which it uses a stated fraction of a machine
when it is alone there (testbed.measures.calibration). Servers are added (testbed.measures.ramp) until the service level
breaks or memory ends: packed by what they *use*, that is overcommitted. On the way the ramp passes the number that fits
by what they *declare*, the sum of their limits; both are figures of a trial, since what has been called the density of
one platform over another was often the one policy against the other.

Density (testbed.measures.density) asks how many copies answer at all, under a load that only probes; here they work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from runtime.errors import UsageError
from runtime.kernel_files import parse_meminfo
from runtime.spec import Resources
from testbed.histograms import can_tell
from testbed.load.arrivals import count_requests
from testbed.load.shapes import find_phase, schedule_day
from testbed.measures import idle
from testbed.measures.application import Application
from testbed.measures.calibration import Calibration, Rate, check_reach, count_processors, find_calibration
from testbed.measures.context import RunContext
from testbed.measures.level import CONFIDENCE, MOST_WINDOWS
from testbed.measures.ramp import (
    RESERVE_BYTES,
    CopyLoad,
    Ramp,
    RampSettings,
    count_most_applications,
    count_ports,
)
from testbed.measures.schedule import PlannedTrial
from testbed.measures.steps import Point
from testbed.measures.steps import make_metrics as make_step_metrics
from testbed.results import Metric, Trial
from testbed.scenario.consolidation import Consolidation, Mix
from testbed.scenario.model import Scenario, Settings

MEASURE = "consolidation"
# From so many servers on, a tenth of them is added before the next look.
_ONE_BY_ONE = 10
PROC = Path("/proc")


class Capacity(Struct, frozen=True):
    """What the host has to give to servers: processors, and bytes of memory without what it keeps for itself."""

    processors: int
    memory_bytes: int


def measure(context: RunContext, planned: PlannedTrial) -> Generator[Trial, None, None]:
    """Pack servers of each of the planned mixes; one trial a mix.

    Raises UsageError when the load cannot be calibrated, WorkloadError when not even the first server starts.
    """
    calibration = find_calibration(context)
    for index, level in enumerate(planned.levels):
        yield _pack(
            context, planned, planned.trial + index, find_mix(context.settings.consolidation, level), calibration
        )


def check_servers(settings: Settings, scenario: Scenario) -> None:
    """Raise UsageError when the scenario's servers cannot be used as much as they are to be, or not packed so."""
    check_reach(settings, scenario, count_processors())
    choose_cap(settings.consolidation, count_declared(list_limits(scenario), read_capacity()))


def list_limits(scenario: Scenario) -> list[Resources]:
    """Return what each service of a server declares."""
    return [service.resources for service in scenario.services]


def find_mix(settings: Consolidation, level: object) -> Mix:
    """Return the mix of that name."""
    return next(mix for mix in settings.mixes if mix.name == level)


def _pack(context: RunContext, planned: PlannedTrial, number: int, mix: Mix, calibration: Calibration) -> Trial:
    settings, platform = context.settings.consolidation, context.platforms[planned.platform]
    rate = calibration.find(mix.fraction)
    declared = count_declared(list_limits(context.scenario), read_capacity())
    cap = count_most_applications(choose_cap(settings, declared), count_ports(context.scenario, platform))
    watched: list[idle.Idle] = []

    def watch(application: Application) -> None:
        watched.append(idle.watch_idle(application, settings.idle_s))

    ramp_settings = RampSettings(
        cap, settings.settle_s, settings.window_s, make_offers(settings, mix, rate), make_growth(declared)
    )
    context.progress(f"  {mix.name}: {rate.rate_per_s:.4g} requests/s each, {settings.shape}")
    with ExitStack() as applications:
        ramp = Ramp(context, platform, ramp_settings, applications, trial=number, block=planned.block, first=watch)
        stop = ramp.run()
    context.progress(f"  {ramp.within_slo} servers ({stop.reason})")
    return Trial(
        number,
        planned.block,
        planned.platform,
        planned.measure,
        stop.outcome,
        stop.reason,
        {
            "mix": mix.name,
            "fraction": mix.fraction,
            "zombies": mix.zombies,
            "rate_per_s": rate.rate_per_s,
            "calibrated_on": calibration.platform,
            "shape": settings.shape,
            "packing": settings.packing,
            "cap": cap,
            "most_windows": MOST_WINDOWS,
            "confidence": CONFIDENCE,
        },
        (
            *make_metrics(ramp.within_slo, ramp.points, declared, rate, calibration),
            *(metric for one in watched for metric in idle.make_metrics(one)),
        ),
        ramp.write(),
    )


def read_capacity() -> Capacity:
    """Return what this host has to give."""
    total_bytes = parse_meminfo((PROC / "meminfo").read_text())["MemTotal"]
    return Capacity(count_processors(), max(0, total_bytes - RESERVE_BYTES))


def count_declared(limits: Iterable[Resources], capacity: Capacity) -> int | None:
    """Return how many servers with these limits fit by them; None where a service has not both of its limits, which
    declares nothing. What the platform itself takes beside a server is in no limit, and not in this figure."""
    limits = tuple(limits)
    processors, memory_bytes = 0.0, 0
    for one in limits:
        if one.cpus is None or one.memory_bytes is None:
            return None
        processors, memory_bytes = processors + one.cpus, memory_bytes + one.memory_bytes
    if processors <= 0 or memory_bytes <= 0:
        return None
    return min(math.floor(capacity.processors / processors + 1e-9), capacity.memory_bytes // memory_bytes)


def choose_cap(settings: Consolidation, declared: int | None) -> int:
    """Return the most servers to add. Raises UsageError where they are to be packed by limits, and cannot be."""
    if settings.packing == "used":
        return settings.cap
    if declared is None:
        raise UsageError(
            "consolidation: packed as declared, and a service declares no limit of processors or memory",
            "deploy.resources.limits with cpus and memory for each service, or --packing used",
        )
    if declared < 1:
        raise UsageError(
            "consolidation: packed as declared, and not one server fits: its limits are more than this host has",
            "lower limits, a larger host, or --packing used",
        )
    return min(settings.cap, declared)


def make_growth(declared: int | None) -> Callable[[int], int]:
    """Return how many servers are to run at the next look: one more, later a tenth more, and always the number that
    fits as declared."""

    def grow(running: int) -> int:
        wanted = running + max(1, running // _ONE_BY_ONE)
        return declared if declared is not None and running < declared < wanted else wanted

    return grow


def make_offers(settings: Consolidation, mix: Mix, rate: Rate) -> Callable[[int], CopyLoad | None]:
    """Return the load of each server: none on zombies, on the others the calibrated rate in the shape that was asked
    for. Raises UsageError when a window is too short for a single request."""
    curve, window_s = settings.make_curve(), settings.window_s

    def offer(server: int) -> CopyLoad | None:
        if mix.is_zombie(server):
            return None
        schedule = schedule_day(curve, rate.rate_per_s, window_s, find_phase(server))
        if count_requests(schedule, rate.rate_per_s, window_s) < 1:
            raise UsageError(
                f"consolidation: no request falls due in {window_s:g} s at {rate.rate_per_s:.4g} requests/s",
                f"x-testbed.consolidation.window_s of {math.ceil(1 / rate.rate_per_s)} at least",
            )
        return CopyLoad(rate.rate_per_s, schedule)

    return offer


def make_metrics(
    within_slo: int, points: list[Point], declared: int | None, rate: Rate, calibration: Calibration
) -> tuple[Metric, ...]:
    """Return the figures of a ramp; those of a step that there was not are absent.

    ``servers`` ran without breaking the service level, ``servers_held`` of them held it for sure; ``servers_declared``
    of them fit by their limits, which would allow ``declared``. ``utilisation_before`` is what a server used on a
    machine of its own when it was calibrated, ``utilisation_after`` what all of them use of this host (of its
    processors' time, platforms' own processes included, generator and others not), ``utilisation_declared`` the same of
    those that fit by their limits. ``alone_cpu`` is one server's part of this host on this platform, and
    ``cpu_overhead`` how many times the calibrated one that is, unless it broke; ``packed_cpu`` is a server's part when
    all run. Latencies are those of one server alone and of all of them.
    """
    steps = {point.applications: point for point in points}
    figures = [
        metric for metric in make_step_metrics(within_slo, points) if not metric.metric.startswith("applications")
    ]
    held = max((point.applications for point in points if point.verdict == "held"), default=0)
    found = [
        Metric("servers", within_slo, "1"),
        Metric("servers_held", held, "1"),
        Metric("utilisation_before", rate.reached, "1"),
    ]
    if declared is not None:
        found += [Metric("declared", declared, "1"), Metric("servers_declared", min(declared, within_slo), "1")]
        if within_slo and (at_declared := steps.get(min(declared, within_slo))):
            found.append(Metric("utilisation_declared", at_declared.host_application, "1"))
    if alone := steps.get(1):
        calibrated = rate.reached * calibration.processors / calibration.host_processors
        if alone.verdict != "broke":  # else it has not done the work
            found.append(Metric("cpu_overhead", alone.host_application / calibrated, "1"))
        found += [
            Metric("alone_cpu", alone.host_application, "1"),
            Metric("alone_memory", alone.held_bytes, "bytes"),
            *_latencies("alone", alone),
        ]
    if within_slo and (last := steps.get(within_slo)):
        found += [
            Metric("utilisation_after", last.host_application, "1"),
            Metric("host_utilisation", last.host_utilisation, "1"),
            Metric("host_generator", last.host_generator, "1"),
            Metric("packed_cpu", last.host_application / within_slo, "1"),
            Metric("packed_memory", last.held_bytes / within_slo, "bytes"),
            *_latencies("packed", last),
        ]
    return (*found, *figures)


def _latencies(name: str, point: Point) -> tuple[Metric, ...]:
    """Return those that the number of requests can tell."""
    told = [("p50", 50.0, point.p50_ms), ("p99", 99.0, point.p99_ms)]
    return tuple(
        Metric(f"{name}_{which}", latency_ms / 1e3, "s")
        for which, percentile, latency_ms in told
        if can_tell(point.requests, percentile)
    )
