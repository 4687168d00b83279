"""Calibration: the rates of requests at which one copy of the application alone uses stated fractions of a machine.

It is done once in a run, on one platform, and all platforms get the same rates: servers do the same work everywhere,
and platforms differ in what that takes. The rates stand in the run's manifest, where a run that is resumed finds them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from statistics import median

import msgspec
from msgspec import Struct, to_builtins

from runtime.errors import TestbedError, UsageError
from testbed.load.open_loop import LoadResult, OfferedLoad, Target, run_loads
from testbed.measures.application import Application
from testbed.measures.context import LOAD_ATTEMPTS, RunContext
from testbed.sample import sum_cpu_ns
from testbed.scenario.model import Scenario, Settings

# The first of these that a run measures is calibrated on: the least between an application and the host.
BASELINES = ("process", "container")
MEMBER = "calibration"
# A rate is right when the copy uses the wanted fraction to so much of it; that many rates are tried for each.
TOLERANCE = 0.10
MOST_TRIES = 8
# A rate is looked at for so many windows of a ramp's.
_WINDOWS = 2
# No rate that is tried is more than so many times the largest before it.
_MOST_GROWTH = 5.0
# The line by which use rises with the rate is laid through what was seen at up to so many times more or less, and at
# least through so many looks, of which one may be wrong.
_NEAR, _LEAST_NEAR = 4.0, 3
_CALIBRATION_BLOCK = 0  # no block of trials has this number: the arrivals of its loads are its own


class Rate(Struct, frozen=True):
    """The rate (requests/s) at which a copy alone used ``reached`` of a machine, near the ``fraction`` (0 to 1) that
    was wanted; ``memory_bytes`` is its cgroup charge then, and the percentiles are of its latency."""

    fraction: float
    rate_per_s: float
    reached: float
    memory_bytes: int
    p50_ms: float
    p99_ms: float


class Calibration(Struct, frozen=True):
    """``rates`` on a platform, as fractions of a machine with so many ``processors``; this host has
    ``host_processors``."""

    platform: str
    processors: float
    host_processors: int
    rates: tuple[Rate, ...]

    def find(self, fraction: float) -> Rate:
        """Return the rate of one of the fractions that were calibrated."""
        return next(one for one in self.rates if one.fraction == fraction)


class Seen(Struct, frozen=True):
    """A copy alone at a rate: the fraction of a machine that it used, its memory, and its answers."""

    rate_per_s: float
    used: float
    memory_bytes: int
    load: LoadResult


def choose_baseline(platforms: Iterable[str]) -> str:
    """Return which of a run's platforms is calibrated on."""
    names = list(platforms)
    return next((name for name in BASELINES if name in names), names[0])


def count_processors() -> int:
    """Return how many processors this host has online."""
    return os.sysconf("SC_NPROCESSORS_ONLN")


def check_reach(settings: Settings, scenario: Scenario, host_processors: int) -> None:
    """Raise UsageError when the limits of a copy's processor time are below what it is to use."""
    limits = [service.resources.cpus for service in scenario.services]
    processors = settings.consolidation.processors or host_processors
    most = max(settings.consolidation.fractions)
    if all(limit is not None for limit in limits) and sum(filter(None, limits)) <= most * processors:
        raise UsageError(
            f"consolidation: a copy of {scenario.name} may use {sum(filter(None, limits)):g} processors, and cannot use"
            f" {most * 100:g} % of a machine with {processors:g}",
            "x-testbed.consolidation.processors says how many the machine had that a server is taken from",
        )


def find_calibration(context: RunContext) -> Calibration:
    """Return the run's calibration, done now if it is not on record.

    Raises UsageError when the application cannot be calibrated, WorkloadError when it does not start.
    """
    recorded = context.folder.manifest.get(MEMBER)
    if recorded is not None:
        return _read(recorded, context)
    found = calibrate(context)
    context.folder.note(**{MEMBER: to_builtins(found)})
    if context.watch.begun:
        context.watch.begin()  # what comes now is the trial's own
    return found


def _read(recorded: object, context: RunContext) -> Calibration:
    """Return what a manifest records. Raises UsageError when it is damaged, or of other fractions."""
    damaged = f"{context.folder.path}: damaged calibration in its manifest"
    try:
        found = msgspec.convert(recorded, Calibration)
    except msgspec.ValidationError as error:
        raise UsageError(f"{damaged}: {error}", "restore it, or make a new run") from error
    if missing := set(context.settings.consolidation.fractions) - {rate.fraction for rate in found.rates}:
        raise UsageError(f"{damaged}: no rate of {min(missing):g}", "restore it, or make a new run")
    return found


def calibrate(context: RunContext) -> Calibration:
    """Start one copy on the baseline and find the rates, from the lowest fraction to the highest."""
    settings, host_processors = context.settings.consolidation, count_processors()
    processors = settings.processors or float(host_processors)
    name = choose_baseline(context.platforms)
    platform = context.platforms[name]
    context.progress(f"  calibrating on {platform.label}: one copy alone on a machine with {processors:g} processors")
    rates: list[Rate] = []
    with Application(context, platform, 0, "calibration") as application:

        def look(rate_per_s: float) -> Seen:
            seen = _look(context, application, rate_per_s, processors)
            context.progress(f"  {rate_per_s:.4g}/s: {seen.used:.1%} used, p99 {seen.load.p99_s * 1e3:.1f} ms")
            return seen

        known: list[Seen] = []
        for fraction in sorted(settings.fractions):
            found = _search(fraction, known, look, context.settings)
            rates.append(_describe(fraction, found))
    return Calibration(name, processors, host_processors, tuple(rates))


def _describe(fraction: float, seen: Seen) -> Rate:
    load = seen.load
    return Rate(fraction, seen.rate_per_s, seen.used, seen.memory_bytes, load.p50_s * 1e3, load.p99_s * 1e3)


def _search(fraction: float, known: list[Seen], look: Callable[[float], Seen], settings: Settings) -> Seen:
    """Return the look at which a copy used the fraction; ``known`` gets all others.

    Raises UsageError when there is no such rate: the service level breaks before, or it uses as much when idle.
    """
    for tried in range(MOST_TRIES + 1):
        found = min(known, key=lambda seen: abs(seen.used - fraction), default=None)
        if found is not None and abs(found.used / fraction - 1) <= TOLERANCE:
            check_level(fraction, found, look, settings)
            return found
        if tried == MOST_TRIES:
            break
        points = [(seen.rate_per_s, seen.used) for seen in known]
        rate_per_s = choose_rate(fraction, points, settings.density.rate_per_s)
        seen = look(rate_per_s)
        known.append(seen)
        if seen.used < fraction:
            check_level(fraction, seen, look, settings)
    shown = ", ".join(f"{seen.used:.1%} at {seen.rate_per_s:.4g}/s" for seen in known[-MOST_TRIES:])
    raise UsageError(
        f"consolidation: found no rate at which one copy alone uses {fraction * 100:g} % of a machine: {shown}",
        "a longer x-testbed.consolidation.window_s, other --fractions, or a quieter host",
    )


def choose_rate(fraction: float, points: Sequence[tuple[float, float]], first: float) -> float:
    """Return the rate to try next, to four digits, from (rate, use) at those before; ``first`` without any.

    Use rises with the rate along a line, near enough: Theil and Sen's through those points that are near (the median
    slope of all pairs, doi:10.1080/01621459.1968.10480934), which a look beside somebody else's work does not turn. Of
    one rate it is the line through nothing.
    """
    if not points:
        return first
    nearest = sorted(points, key=lambda point: abs(point[1] - fraction))
    near = [point for point in nearest if fraction / _NEAR <= point[1] <= fraction * _NEAR]
    near = near if len(near) >= _LEAST_NEAR else nearest[:_LEAST_NEAR]
    pairs = [(one, two) for one, two in combinations(near, 2) if one[0] != two[0]]
    if pairs:
        slope = median((two[1] - one[1]) / (two[0] - one[0]) for one, two in pairs)
        idle = median(used - slope * rate for rate, used in near)
    else:
        slope, idle = median(used for _, used in near) / near[0][0], 0.0
    largest = max(rate for rate, _ in points)
    if slope <= 0:  # noise, or all that can be seen is what an idle copy uses
        return float(f"{largest * 2:.4g}")
    least = min(rate for rate, _ in points) / _MOST_GROWTH
    return float(f"{min(max((fraction - idle) / slope, least), largest * _MOST_GROWTH):.4g}")


def check_level(fraction: float, seen: Seen, look: Callable[[float], Seen], settings: Settings) -> None:
    """Raise UsageError when a copy alone breaks its service level at this rate, and does so again."""
    if describe_break(seen.load, settings) and (why := describe_break(look(seen.rate_per_s).load, settings)):
        raise UsageError(
            f"consolidation: the service level breaks with one copy alone at {seen.rate_per_s:.4g} requests/s, with"
            f" {seen.used:.1%} of {fraction * 100:g} % used: {why}",
            "smaller --fractions, another x-testbed.slo, or x-testbed.consolidation.processors for a smaller machine",
        )


def describe_break(load: LoadResult, settings: Settings) -> str:
    """Return why a load did not keep to the service level; empty when it did."""
    if not load.ok:
        return f"no request succeeded ({', '.join(load.failures)})"
    if load.saturated:
        return f"saturated, {load.achieved_rate_per_s:.0f}/s answered"
    if load.error_fraction > settings.slo.error_fraction:
        return f"{load.error_fraction:.1%} of {load.ok + load.failed} requests failed"
    if load.p99_s * 1e3 > settings.slo.p99_ms:
        return f"p99 {load.p99_s * 1e3:.0f} ms, more than {settings.slo.p99_ms:g} ms"
    return ""


def _look(context: RunContext, application: Application, rate_per_s: float, processors: float) -> Seen:
    """Offer a rate and read what it takes. Raises TestbedError when the generator is late again and again, and
    WorkloadError when the application has ended."""
    for attempt in range(LOAD_ATTEMPTS):
        seen = _load(context, application, rate_per_s, processors, attempt)
        if not seen.load.late:
            return seen
    raise TestbedError(f"calibration at {rate_per_s:g}/s: {seen.load.reason}", "a quieter host")


def _load(context: RunContext, application: Application, rate_per_s: float, processors: float, attempt: int) -> Seen:
    load, settings = context.settings.load, context.settings.consolidation
    cgroups = tuple(application.cgroups().values())
    begun: list[tuple[int, int]] = []

    def read() -> tuple[int, int]:
        return time.monotonic_ns(), sum_cpu_ns(cgroups)

    offered = OfferedLoad(
        Target(application.addresses[load.service], load.port, load.kinds),
        rate_per_s,
        max(_WINDOWS * settings.window_s, 2 / rate_per_s),
        load.connections,
        context.arrival_seed(_CALIBRATION_BLOCK, attempt),
        warmup_s=settings.settle_s,
    )
    (result,) = run_loads([offered], started=lambda: begun.append(read()))
    application.check_alive()
    (began_ns, cpu_ns), (ended_ns, used_ns) = begun[0], read()
    used = (used_ns - cpu_ns) / (ended_ns - began_ns) / processors
    return Seen(rate_per_s, used, sum(cgroup.memory_bytes() for cgroup in cgroups), result)
