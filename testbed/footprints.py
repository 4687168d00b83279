"""Reads from a run what a copy of its application takes on each platform: memory, CPU time, and the time of a start.

These are what a fleet is packed by (testbed.fleet). A figure keeps the interval that its trials give it; what has none,
as few trials were made, stays without one, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from msgspec import Struct

from runtime.errors import UsageError
from testbed.analysis import (
    Platform,
    Run,
    estimate_start_phases,
    get_mapping,
    get_offered_rate,
    select_trials,
)
from testbed.consolidations import estimate_idle
from testbed.ramps import estimate_memory_of_copies, select_ramps
from testbed.results import Trial
from testbed.statistics import Estimate, MeanEstimate, estimate_median_of_series
from testbed.timeline import read_timeline

# What a footprint's memory is read by, unless another ruler is asked for: what the kernel charges.
RULER = "memory_cgroup"
# Without these measures a run has no footprint.
NEEDED = ("density", "utilisation")
# What the host's own rows among the samples are called.
HOST = "host"


class Footprint(Struct, frozen=True):
    """What copies of an application take on a platform.

    Bytes of the first copy on a host and of each further one; CPU seconds for a request and, for each second, of an
    idle copy, which was looked at itself where the run has a consolidation, and else follows from several rates
    (``cpu_idle`` is None where the run has one rate only: then it is within ``cpu_per_request``). ``start_s``
    is the time from a request to the first correct answer, None where it was not measured. ``instances`` is how many a
    copy is made of, ``held`` are the copies that each ramp ended with, and ``capped`` whether the ramp's own limit
    ended all of them.
    """

    platform: str
    label: str
    emulated: bool
    memory_first: Estimate
    memory_further: Estimate
    cpu_per_request: Estimate
    cpu_idle: Estimate | None
    start_s: Estimate | None
    instances: int = 1
    held: tuple[int, ...] = ()
    capped: bool = False

    @property
    def without_interval(self) -> tuple[str, ...]:
        """The names of those figures that have no interval of 95 %, for too few trials were made."""
        figures = {
            "memory of the first copy": self.memory_first,
            "memory of a further copy": self.memory_further,
            "CPU time per request": self.cpu_per_request,
            "CPU time of an idle copy": self.cpu_idle,
        }
        return tuple(name for name, one in figures.items() if one is not None and not one.is_interval)


def read_footprints(run: Run, ruler: str = RULER, only: Sequence[str] = ()) -> tuple[Footprint, ...]:
    """Return the footprint of each platform that the run measured both by density and by utilisation.

    ``only`` names the platforms that must be among them. Raises UsageError where there is none, or one of ``only`` has
    none, with what to measure first; and where the service level broke with one copy.
    """
    named = {one.name: one for one in run.platforms}
    unknown = [name for name in only if name not in named]
    if unknown:
        raise UsageError(
            f"{run.folder.run_id} has no platform {', '.join(unknown)}", f"it has {', '.join(named) or 'none'}"
        )
    missing = {name: _list_missing(run, name) for name in (only or named)}
    if only and (absent := {name: what for name, what in missing.items() if what}):
        raise _lacking(run, absent)
    footprints = tuple(_read(run, named[name], ruler) for name, what in missing.items() if not what)
    if not footprints:
        raise _lacking(run, missing)
    return footprints


def _list_missing(run: Run, platform: str) -> tuple[str, ...]:
    """Return the measures without which a platform has no footprint, and which it has no successful trial of."""
    return tuple(measure for measure in NEEDED if not select_trials(run, measure, platform))


def _lacking(run: Run, missing: dict[str, tuple[str, ...]]) -> UsageError:
    lacks = "; ".join(f"{name} has no successful trial of {' and '.join(what)}" for name, what in missing.items())
    scenario = run.manifest.get("scenario") or "clickme"
    names = ",".join(missing) or "container,vm"
    return UsageError(
        f"{run.folder.run_id} has no measured footprint: {lacks or 'it has no trials'}",
        f"measure it first: ./invoke bench --scenario {scenario} --platforms {names} --measures {','.join(NEEDED)}",
    )


def _read(run: Run, platform: Platform, ruler: str) -> Footprint:
    name = platform.name
    ramps = select_ramps(run, name)
    if ramps and not any(ramp.applications for ramp in ramps):
        raise UsageError(
            f"{run.folder.run_id}: the service level of {name} does not hold with one copy ({ramps[0].reason})",
            "state one that it can hold (slo in compose.yaml), or a lower density.rate_per_s, and measure again",
        )
    memory = estimate_memory_of_copies(run, name, ruler)
    if memory is None or memory.further is None:
        raise UsageError(
            f"{run.folder.run_id}: what a further copy takes on {name} is not known by {ruler}: no ramp has two copies",
            "raise density.cap in compose.yaml, or read it by another ruler (--ruler), and measure density again",
        )
    per_request, idle = estimate_cpu(select_trials(run, "utilisation", name))
    cap = get_mapping(get_mapping(run.manifest.get("settings")).get("density")).get("cap")
    return Footprint(
        platform=name,
        label=platform.label,
        emulated=platform.emulated,
        memory_first=memory.first,
        memory_further=_as_estimate(memory.further),
        cpu_per_request=per_request,
        cpu_idle=None if idle is None else estimate_idle(run, name).get("idle_cpu", idle),
        start_s=estimate_start_phases(run, name).get("ready"),
        instances=_count_instances(run, name),
        held=tuple(ramp.applications for ramp in ramps),
        capped=bool(ramps) and all(ramp.applications == cap for ramp in ramps),
    )


def _count_instances(run: Run, platform: str) -> int:
    """Return how many instances a copy is made of: those that were sampled, or one for each service of the scenario."""
    for trial in select_trials(run, "utilisation", platform):
        if sampled := len(read_timeline(run, trial).keys() - {HOST}):
            return sampled
    return max(1, len(get_mapping(run.manifest.get("images"))))


def _as_estimate(mean: MeanEstimate) -> Estimate:
    """Return a mean as an estimate; without an interval its own value is its range."""
    if mean.low is None or mean.high is None:
        return Estimate(mean.value, mean.value, mean.value, mean.n, 0.0)
    return Estimate(mean.value, mean.low, mean.high, mean.n, 0.95)


def estimate_cpu(trials: Sequence[Trial]) -> tuple[Estimate, Estimate | None]:
    """Return CPU seconds per request, and per second of an idle copy, from trials of several rates.

    A line through (answered requests per second, CPU seconds per second) of each block, by least squares, has the one
    as its slope and the other where no request comes; the estimates are medians over blocks, so that they keep an
    interval free of assumptions. Where no block has two rates, there is one line through all. A copy uses no less than
    nothing: what is below 0 counts as 0, and its slope goes through the origin then. With one rate only the idle part
    cannot be told from the rest: None.

    Raises UsageError where no trial has CPU time.
    """
    blocks: dict[int, list[tuple[float, float]]] = {}
    for trial in trials:
        rate, cost = trial.value("achieved_rate") or get_offered_rate(trial), trial.value("cpu_per_request")
        if rate and rate > 0 and cost is not None and cost >= 0 and not trial.value("saturated"):
            blocks.setdefault(trial.block, []).append((rate, cost * rate))
    if not blocks:
        raise UsageError(
            "no trial of utilisation has CPU time per request, or the platform was saturated in all",
            "lower load.rates_per_s in compose.yaml and measure utilisation again",
        )
    lines = [fit_line(points) for points in blocks.values() if _has_rates(points)]
    if lines:
        return estimate_median_of_series([slope for slope, _ in lines]), estimate_median_of_series(
            [idle for _, idle in lines]
        )
    every = [point for points in blocks.values() for point in points]
    if not _has_rates(every):
        return estimate_median_of_series([cpu / rate for rate, cpu in every]), None
    slope, idle = fit_line(every)  # one line has no interval
    return Estimate(slope, slope, slope, 1, 0.0), Estimate(idle, idle, idle, 1, 0.0)


def _has_rates(points: Sequence[tuple[float, float]]) -> bool:
    """Whether points lie at different rates, by more than the generator's chance."""
    rates = [rate for rate, _ in points]
    return max(rates) > 1.05 * min(rates)


def fit_line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return slope and intercept, neither below 0, of the least squares line through two points or more that have
    different abscissas."""
    middle, height = fmean(x for x, _ in points), fmean(y for _, y in points)
    slope = sum((x - middle) * (y - height) for x, y in points) / sum((x - middle) ** 2 for x, _ in points)
    if slope < 0:
        return 0.0, height
    if height - slope * middle < 0:
        return sum(x * y for x, y in points) / sum(x * x for x, _ in points), 0.0
    return slope, height - slope * middle
