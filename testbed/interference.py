"""What neighbours do to an application: its figures beside each, relative to the same application alone.

Each block has the application alone once on each platform, under the same requests; a ratio is that of a block, and its
estimate the median over blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from runtime.errors import UsageError
from testbed.analysis import Run, select_trials
from testbed.histograms import percentile_or_none
from testbed.neighbours.cases import ALONE, SHARED, Case, list_cases
from testbed.results import Trial
from testbed.scenario.neighbours import KINDS
from testbed.statistics import Estimate, estimate_median_of_series

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram

MEASURE = "neighbours"
THROUGHPUT = "achieved_rate"
# What is set against the application alone; a latency is there where so many requests can tell it.
COMPARED = ("latency_p50", "latency_p90", "latency_p99", "latency_p99_9", THROUGHPUT)
# What a neighbour took and did, as trials have it, and whom the kernel of a guest that both are in has killed.
DONE = ("neighbour_cpu", "neighbour_memory", "neighbour_work", "neighbour_refused", "neighbour_killed", "guest_killed")
_RAREST = 99.9


class Interference(Struct, frozen=True):
    """An application beside a neighbour on a platform, over so many ``trials``.

    ``ratios`` are to the application alone, by metric; ``pooled`` is that of the 99.9th percentiles of all blocks'
    requests together, None where they are too few. ``survived``, ``saturated`` and ``broken`` (its service level was)
    count trials. ``done`` are medians of what the neighbour took and did.
    """

    case: Case
    trials: int
    survived: int
    saturated: int
    broken: int
    ratios: Mapping[str, Estimate]
    done: Mapping[str, Estimate]
    pooled: float | None = None
    lost: tuple[str, ...] = ()

    @property
    def does(self) -> str:
        """What the neighbour does."""
        return KINDS[self.case.kind]


def estimate_interference(run: Run, platform: str) -> tuple[Interference, ...]:
    """Return what each kind of neighbour did to the application on a platform, in the order of kinds, with limits
    first."""
    return run.remember((MEASURE, platform), lambda: _estimate(run, platform))


def estimate_alone(run: Run, platform: str) -> dict[str, Estimate]:
    """Return the medians of the application's own figures alone, in base units."""
    return _medians(_group(run, platform).get(ALONE, ()), COMPARED)


def describe_shared(run: Run, platform: str) -> str:
    """Return what the application and its neighbours share on a platform, in words; empty where trials do not tell."""
    told = {str(trial.parameters.get("shared")) for trial in select_trials(run, MEASURE, platform)}
    return SHARED.get(told.pop(), "") if len(told) == 1 else ""


def count_broken_alone(run: Run, platform: str) -> tuple[int, int]:
    """Return in how many trials the application broke its service level alone, and of how many."""
    trials = _group(run, platform).get(ALONE, ())
    return sum(trial.value("slo_broken") == 1 for trial in trials), len(trials)


def _group(run: Run, platform: str) -> dict[str, list[Trial]]:
    groups: dict[str, list[Trial]] = {}
    for trial in select_trials(run, MEASURE, platform):
        groups.setdefault(str(trial.parameters.get("case")), []).append(trial)
    return groups


def _estimate(run: Run, platform: str) -> tuple[Interference, ...]:
    groups = _group(run, platform)
    alone = groups.get(ALONE, [])
    pooled = _pool(run, alone)
    return tuple(
        _compare(run, case, groups[case.name], alone, pooled)
        for case in list_cases(tuple(KINDS))
        if case.kind and case.name in groups
    )


def _compare(
    run: Run, case: Case, trials: Sequence[Trial], alone: Sequence[Trial], pooled_alone: float | None
) -> Interference:
    base = {trial.block: trial for trial in alone}
    pairs = [(trial, base[trial.block]) for trial in trials if trial.block in base]
    ratios = {metric: values for metric in COMPARED if (values := _divide(pairs, metric))}
    pooled = _pool(run, trials)
    return Interference(
        case=case,
        trials=len(trials),
        survived=sum(trial.value("survived") == 1 for trial in trials),
        saturated=sum(trial.value("saturated") == 1 for trial in trials),
        broken=sum(trial.value("slo_broken") == 1 for trial in trials),
        ratios={metric: estimate_median_of_series(values) for metric, values in ratios.items()},
        done=_medians(trials, DONE),
        pooled=pooled / pooled_alone if pooled is not None and pooled_alone else None,
        lost=tuple(dict.fromkeys(str(trial.parameters["lost"]) for trial in trials if "lost" in trial.parameters)),
    )


def _divide(pairs: Iterable[tuple[Trial, Trial]], metric: str) -> list[float]:
    """Return a metric's ratios, of the pairs in which both trials have it."""
    values = [(one.value(metric), other.value(metric)) for one, other in pairs]
    return [value / base for value, base in values if value is not None and base]


def _medians(trials: Sequence[Trial], names: Iterable[str]) -> dict[str, Estimate]:
    observed = {name: [value for one in trials if (value := one.value(name)) is not None] for name in names}
    return {name: estimate_median_of_series(values) for name, values in observed.items() if values}


def _pool(run: Run, trials: Sequence[Trial]) -> float | None:
    """Return the 99.9th percentile of all trials' latencies together, in microseconds; None where they are too few, or
    some trial's cannot be had."""
    whole: HdrHistogram | None = None
    for trial in trials:
        try:
            of_trial = run.folder.read_histogram(trial)
        except UsageError:
            return None
        if of_trial is None or trial.value("saturated") == 1:
            return None
        if whole is None:
            whole = of_trial
        else:
            whole.add(of_trial)
    return percentile_or_none(whole, _RAREST) if whole is not None else None
