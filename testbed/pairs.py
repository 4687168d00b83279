"""Compares what was measured side by side: the two of a duet, and one platform with itself.

What one platform differs by from itself, measured twice in the same blocks (A/A), is the noise floor: a difference
between two platforms that is not larger says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from testbed.aliases import find_original
from testbed.analysis import Run, get_offered_rate
from testbed.headlines import HEADLINES, find_headline
from testbed.levels import Level, find_level
from testbed.results import Trial
from testbed.statistics import Comparison, Estimate, compare_pairs, estimate_median_ratio

Pair = tuple[float, float]


class NoiseFloor(Struct, frozen=True):
    """What a platform differs by from itself in a metric (at an offered rate, in requests per second; None for none).

    ``ratio`` is that of its two medians with their interval, or in a duet that of its pairs.
    """

    platform: str
    measure: str
    metric: str
    ratio: Estimate
    rate_per_s: float | None = None

    @property
    def spread(self) -> float:
        """The largest relative difference that the interval allows, in either direction: 0.05 for 0.96 to 1.05."""
        return max(self.ratio.high - 1, 1 / self.ratio.low - 1, 0.0)


def select_pairs(
    run: Run, measure: str, platforms: tuple[str, str], metric: str, level: Level | None = None
) -> tuple[Pair, ...]:
    """Return a metric's values on two platforms, pair by pair: of trials that count and were in the same block, at the
    same level (testbed.levels), of those that have any at this one or at each."""
    one, other = (_by_block(run.trials, measure, name, metric, level) for name in platforms)
    return tuple((one[block], other[block]) for block in one if block in other)


def _by_block(
    trials: Iterable[Trial], measure: str, platform: str, metric: str, level: Level | None
) -> dict[tuple[int, Level | None], float]:
    values: dict[tuple[int, Level | None], float] = {}
    for trial in trials:
        if trial.counted and (trial.measure, trial.platform) == (measure, platform):
            own, value = find_level(trial), trial.value(metric)
            if value is not None and level in (None, own):
                values[trial.block, own] = value
    return values


def list_duets(run: Run) -> tuple[tuple[str, str], ...]:
    """Return the platforms that ran at the same time, two by two, in the order of the manifest."""
    names = [one.name for one in (*run.platforms, *run.again)]
    together = {(trial.platform, trial.beside) for trial in run.trials}
    return tuple(
        (one, other)
        for index, one in enumerate(names)
        for other in names[index + 1 :]
        if together & {(one, other), (other, one)}
    )


def compare_duet(
    run: Run, measure: str, platforms: tuple[str, str], metric: str, level: Level | None = None
) -> Comparison | None:
    """Return how the second platform compares with the first, pair by pair (testbed.statistics.compare_pairs); None
    without a pair."""
    pairs = select_pairs(run, measure, platforms, metric, level)
    return compare_pairs([one for one, _ in pairs], [other for _, other in pairs]) if pairs else None


def find_noise_floor(run: Run, measure: str, metric: str, level: Level | None = None) -> NoiseFloor | None:
    """Return the noise floor of a metric; None where no platform was measured again, or its values have no ratio."""
    for again in run.again:
        both = find_original(again.name), again.name
        if both in list_duets(run):
            comparison = compare_duet(run, measure, both, metric, level)
            ratio = comparison.ratio if comparison else None
        else:
            ratio = _ratio_of_medians(run, measure, both, metric, level)
        if ratio is not None and ratio.low > 0:
            return NoiseFloor(both[0], measure, metric, ratio, level if isinstance(level, float) else None)
    return None


def _ratio_of_medians(
    run: Run, measure: str, platforms: tuple[str, str], metric: str, level: Level | None
) -> Estimate | None:
    base, of = (list(_by_block(run.trials, measure, name, metric, level).values()) for name in platforms)
    return estimate_median_ratio(of, base) if base and of and min(*base, *of) > 0 else None


def list_noise_floors(run: Run) -> tuple[NoiseFloor, ...]:
    """Return the noise floor of each measure's headline, of utilisation at each offered rate."""
    found = (find_noise_floor(run, *figure) for figure in list_headlines(run))
    return tuple(one for one in found if one is not None)


def list_headlines(run: Run) -> tuple[tuple[str, str, float | None], ...]:
    """Return each measure's headline, as measure, metric and, of utilisation, each offered rate (else None)."""
    figures: list[tuple[str, str, float | None]] = []
    for measure in HEADLINES:
        if metric := find_headline(measure, run.trials):
            rates = sorted({rate for one in run.trials if one.measure == measure and (rate := get_offered_rate(one))})
            figures += [(measure, metric, rate) for rate in (rates if measure == "utilisation" else [None])]
    return tuple(figures)
