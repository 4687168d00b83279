"""Compares what was measured side by side: the two of a duet, and one platform with itself.

What one platform differs by from itself, measured twice in the same blocks (A/A), is the noise floor: a difference
between two platforms that is not larger says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from testbed.aliases import find_original
from testbed.analysis import Run
from testbed.headlines import HEADLINES, find_headline
from testbed.levels import LEVELS, Level, find_level
from testbed.results import Trial
from testbed.statistics import Comparison, Estimate, compare_blocks, compare_pairs

Pair = tuple[float, float]


class NoiseFloor(Struct, frozen=True):
    """What a platform differs by from itself in a metric (at an offered rate, in requests per second; None for none; of
    a mix of servers, "" for none).

    ``ratio`` is as any other comparison of the run has it: of its two medians or within blocks
    (``testbed.statistics.compare_blocks``), in a duet that of its pairs.
    """

    platform: str
    measure: str
    metric: str
    ratio: Estimate
    rate_per_s: float | None = None
    mix: str = ""

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
            ratio = _compare_again(run, measure, both, metric, level)
        if ratio is not None and ratio.low > 0:
            rate, mix = (None, level) if isinstance(level, str) else (level, "")
            return NoiseFloor(both[0], measure, metric, ratio, rate, mix)
    return None


def _compare_again(
    run: Run, measure: str, platforms: tuple[str, str], metric: str, level: Level | None
) -> Estimate | None:
    base, again = (
        [(block, value) for (block, _), value in _by_block(run.trials, measure, name, metric, level).items()]
        for name in platforms
    )
    return compare_blocks(base, again).ratio if base and again else None


def list_noise_floors(run: Run) -> tuple[NoiseFloor, ...]:
    """Return the noise floor of each measure's headline, at each of its levels."""
    found = (find_noise_floor(run, *figure) for figure in list_headlines(run))
    return tuple(one for one in found if one is not None)


def list_headlines(run: Run) -> tuple[tuple[str, str, Level | None], ...]:
    """Return each measure's headline, as measure, metric and each of its levels (None where it has none)."""
    figures: list[tuple[str, str, Level | None]] = []
    for measure in HEADLINES:
        if metric := find_headline(measure, run.trials):
            found = {find_level(one) for one in run.trials if one.measure == measure} - {None}
            levels = sorted(found, key=lambda level: (isinstance(level, str), level)) if measure in LEVELS else [None]
            figures += [(measure, metric, level) for level in levels]
    return tuple(figures)
