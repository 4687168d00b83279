"""The platforms of a run against its baseline, and what its trials did in the order in which they were made.

Compared is what starts at the same temperature and runs on hardware: the first such platform of the manifest is the
baseline of the others. All verdicts of a run hold at once (Holm).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from msgspec import Struct
from msgspec.structs import replace

from testbed.analysis import (
    TEMPERATURES,
    Platform,
    Run,
    find_saturated,
    get_offered_rate,
    list_compared,
    list_work_figures,
)
from testbed.consolidations import MEASURE, list_mixes
from testbed.copies import further_bytes
from testbed.levels import Level, find_level
from testbed.pairs import list_duets
from testbed.ramps import Ramp, is_capped, select_ramps
from testbed.results import Trial
from testbed.statistics import (
    MARGIN,
    RISK,
    Autocorrelation,
    Blocks,
    Comparison,
    Drift,
    adjust_holm,
    autocorrelation,
    compare_blocks,
    estimate_median_of_series,
    find_warmup,
    judge_drift,
    judge_exactly,
    judge_family,
)


class Headline(Struct, frozen=True):
    """What a measure is compared by. ``rate_per_s`` is that of utilisation: the highest that all keep up with; ``mix``
    the servers of consolidation."""

    measure: str
    metric: str
    rate_per_s: float | None = None
    mix: str = ""


class PlatformComparison(Struct, frozen=True):
    """A platform against the baseline in one figure; both go by their names."""

    headline: Headline
    baseline: str
    platform: str
    comparison: Comparison


class Series(Struct, frozen=True):
    """A platform's values of one figure over the run: how many first ones are ``warmup`` that was not marked as such,
    and what the others do. ``drifts`` and ``is_related`` are judged over all series of the run at once. ``effective``
    is as how many independent trials they count in an interval, None of too few to show otherwise."""

    headline: Headline
    platform: str
    warmup: int
    drift: Drift
    related: Autocorrelation
    drifts: bool = False
    is_related: bool = False
    effective: float | None = None


def compare_platforms(run: Run, margin: float = MARGIN) -> tuple[PlatformComparison, ...]:
    """Return every comparison that a run allows, with verdicts that hold for all of them at once, or, in instruction
    time, exactly. Duets have their own (testbed.pairs)."""
    return run.remember(("comparisons", margin), lambda: _compare_platforms(run, margin))


def _compare_platforms(run: Run, margin: float) -> tuple[PlatformComparison, ...]:
    duets = {frozenset(duet) for duet in list_duets(run)}
    found = [
        PlatformComparison(headline, baseline.name, other.name, compare_blocks(values[baseline], values[other], margin))
        for group in _list_groups(run)
        for headline, values in _list_figures(run, group)
        for baseline, other in ((next(iter(values)), other) for other in list(values)[1:])
        if {baseline.name, other.name} not in duets
        and not all(_is_bound(run, headline, one.name) for one in (baseline, other))
    ]
    comparisons = [one.comparison for one in found]
    judged = map(judge_exactly, comparisons) if run.instruction_time else judge_family(comparisons)
    return tuple(replace(one, comparison=verdict) for one, verdict in zip(found, judged, strict=True))


def _is_bound(run: Run, headline: Headline, platform: str) -> bool:
    """Return whether a number of copies, or of servers, is only the cap: more might fit."""
    if headline.mix:
        packed = next((mix.packed for mix in list_mixes(run) if mix.name == headline.mix), ())
        return any(one.platform == platform and one.is_capped for one in packed)
    return headline.metric == "applications" and is_capped(run, platform)


def examine_series(run: Run) -> tuple[Series, ...]:
    """Return what each platform's headline figures did over the run."""
    return run.remember(("series",), lambda: _examine_series(run))


def _examine_series(run: Run) -> tuple[Series, ...]:
    found = [
        _examine(headline, platform.name, [value for _, value in values[platform]])
        for platform in run.platforms
        for headline, values in _list_figures(run, [platform])
    ]
    drifting = adjust_holm([one.drift.p_value for one in found])
    related = adjust_holm([one.related.p_value for one in found])
    return tuple(
        replace(one, drifts=p_drift <= RISK, is_related=p_related <= RISK)
        for one, p_drift, p_related in zip(found, drifting, related, strict=True)
    )


def _examine(headline: Headline, platform: str, values: Sequence[float]) -> Series:
    warmup = find_warmup(values)
    rest, effective = values[warmup:], estimate_median_of_series(values).effective
    return Series(headline, platform, warmup, judge_drift(rest), autocorrelation(rest), effective=effective)


def _list_groups(run: Run) -> list[list[Platform]]:
    """Return the platforms that may be set side by side: on hardware, and started at the same temperature."""
    return [
        [one for one in run.platforms if one.temperature == temperature and not one.emulated]
        for temperature in TEMPERATURES
    ]


def _list_figures(run: Run, platforms: Sequence[Platform]) -> list[tuple[Headline, dict[Platform, Blocks]]]:
    """Return the headline figures that platforms have values of, each with those platforms, in their order."""
    figures = [
        (Headline("start", "ready"), _read_metric("start", "ready")),
        (Headline("density", "further_bytes"), _read_further),
        (Headline("density", "applications"), _read_metric("density", "applications")),
    ]
    if rate := _find_shared_rate(run, platforms):
        figures += [
            (Headline("utilisation", metric, rate), _read_metric("utilisation", metric, rate))
            for metric in ("cpu_per_request", "latency_p99")
        ]
    figures += [
        (Headline(MEASURE, "servers", mix=mix.name), _read_metric(MEASURE, "servers", mix.name))
        for mix in list_mixes(run)
    ]
    figures += [(Headline("work", name), _read_metric("work", name)) for name in list_work_figures(run)]
    return [
        (headline, values)
        for headline, read in figures
        if (values := {
            one: of for one in platforms if one in list_compared(run, headline.measure) and (of := read(run, one.name))
        })
    ]  # fmt: skip


def _read_metric(measure: str, metric: str, level: Level | None = None) -> Callable[[Run, str], Blocks]:
    def read(run: Run, platform: str) -> Blocks:
        trials = _select(run.trials, measure, platform, level)
        return [(trial.block, value) for trial in trials if (value := trial.value(metric)) is not None]

    return read


def _select(trials: Iterable[Trial], measure: str, platform: str, level: Level | None = None) -> list[Trial]:
    return [
        trial
        for trial in trials
        if trial.counted
        and (trial.measure, trial.platform) == (measure, platform)
        and (level is None or find_level(trial) == level)
    ]


def _read_further(run: Run, platform: str) -> Blocks:
    """Return what a further copy takes, bytes by cgroup charge: the mean over a ramp."""
    blocks = {trial.trial: trial.block for trial in run.trials}

    def mean(ramp: Ramp) -> float | None:
        taken = further_bytes(ramp.points, "memory_cgroup")
        return fmean(taken) if taken else None

    return [(blocks[ramp.trial], of) for ramp in select_ramps(run, platform) if (of := mean(ramp)) is not None]


def _find_shared_rate(run: Run, platforms: Sequence[Platform]) -> float | None:
    """Return the highest offered rate that all platforms that were offered any keep up with."""
    rates = []
    for one in platforms:
        offered = {get_offered_rate(trial) for trial in _select(run.trials, "utilisation", one.name)} - {None}
        if offered:
            rates.append(offered - find_saturated(run, one.name).keys())
    return max(filter(None, set.intersection(*rates)), default=None) if rates else None
