"""What neighbouring trials have in common, and intervals of medians that allow for it.

An interval takes trials as independent. Where one resembles the one before, there are fewer of them than it seems.
Pure Python, for it may be asked while a run decides what to do next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist

from msgspec import Struct

from testbed.statistics.medians import LEVEL, RISK, Estimate, estimate_median, find_depth, find_middle

# A correlation that one independent series in five has is reason enough to widen an interval: what is found with less
# risk is found too late (benchmarks/coverage.py).
SUSPICION = 0.2
# Of fewer trials nothing can be told.
FEWEST_OF_SERIES = 6
# Of fewer trials the range is as far as an interval can go, and a test that allows for correlation would never reject:
# they are taken as independent, which is what randomised blocks are for.
FEWEST_TO_ALLOW = 20
# Beyond, correlation is not believed, for an interval would have no end.
_LARGEST_CORRELATION = 0.95


class Autocorrelation(Struct, frozen=True):
    """How much a trial has in common with the next one, from -1 to 1: ``lag_1``, of ranks.

    Of independent trials one series in twenty is beyond ``bound``, one in five beyond ``suspect``; ``p_value`` is that
    of so much or more.
    """

    lag_1: float
    bound: float
    suspect: float
    p_value: float
    n: int

    @property
    def found(self) -> bool:
        """Whether neighbours have more in common than chance gives: then an interval is too short."""
        return self.lag_1 > self.bound

    @property
    def is_suspected(self) -> bool:
        """Whether they may have: then an interval must be wider to be sure."""
        return self.lag_1 > self.suspect


def autocorrelation(values: Sequence[float]) -> Autocorrelation:
    """Return the autocorrelation at lag 1 of the values' ranks, with its bounds under independence.

    Its mean is -1 / n then; its variance is that of J.-M. Dufour and R. Roy (Some robust exact results on sample
    autocorrelations and tests of randomness, Journal of Econometrics 29, 1985). Fewer than ``FEWEST_OF_SERIES`` values,
    and equal ones, have none.
    """
    n = len(values)
    ranks = rank(values)
    mean = (n + 1) / 2
    total = sum((one - mean) ** 2 for one in ranks)
    if n < FEWEST_OF_SERIES or not total:
        return Autocorrelation(0.0, 1.0, 1.0, 1.0, n)
    lag_1 = sum((one - mean) * (following - mean) for one, following in pairwise(ranks)) / total
    variance = (5 * n**4 - 14 * n**3 - 9 * n**2 + 26 * n + 16) / (5 * (n - 1) ** 2 * n**2 * (n + 1))
    chance = NormalDist(-1 / n, math.sqrt(variance))
    return Autocorrelation(lag_1, chance.inv_cdf(1 - RISK), chance.inv_cdf(1 - SUSPICION), 1 - chance.cdf(lag_1), n)


def rank(values: Sequence[float]) -> list[float]:
    """Return the rank of each value, from 1; equal ones share theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    begin = 0
    while begin < len(order):
        end = begin
        while end < len(order) and values[order[end]] == values[order[begin]]:
            end += 1
        for index in order[begin:end]:
            ranks[index] = (begin + 1 + end) / 2
        begin = end
    return ranks


def estimate_median_of_series(values: Sequence[float], *, level: float = LEVEL) -> Estimate:
    """Return the median of trials in the order in which they were made, with an interval that is wider where neighbours
    may have something in common.

    It holds from about 20 trials on; fewer cannot show what they have in common (benchmarks/coverage.py). Raises
    ValueError without values.
    """
    estimate = estimate_median(values, level=level)
    wider = _widen(values, level) if estimate.level >= level else None
    return wider or estimate


def find_inflation(*samples: Sequence[float]) -> float:
    """Return how many times as large the variance of a sum of ranks may be as that of independent trials, at least 1:
    1 + 2 sum r ** k, as of a first-order autoregressive series, on average over samples that are given in their order.
    Samples of fewer than ``FEWEST_TO_ALLOW`` are taken as independent.
    """
    found = []
    for values in samples:
        related = autocorrelation(values)
        allowed = related.is_suspected and related.n >= FEWEST_TO_ALLOW
        of_values = _correct(related.lag_1, related.n) if allowed else 0.0
        found.append((1 + of_values) / (1 - of_values))
    return sum(found) / len(found)


def find_limits(values: Sequence[float], level: float) -> Estimate:
    """Return the median of trials in their order, with limits to be combined with those of another one.

    They cover just ``level``, between two order statistics (T. P. Hettmansperger and S. J. Sheather, Confidence
    intervals based on interpolated order statistics, Statistics and Probability Letters 4, 1986): combined intervals
    that each cover more than they say cover far more. By itself it would cover less than it says where the middle of a
    distribution is empty. Of too few values they are the range, with level 0.
    """
    ordered = sorted(values)
    n = len(ordered)
    depth, covered, narrower = find_depth(n, level)
    if covered < level:
        return Estimate(find_middle(ordered), ordered[0], ordered[-1], n, 0.0)
    if wider := _widen(values, level):
        return wider
    outside, inside = depth + 1, n - depth - 1
    part = (covered - level) / (covered - narrower)
    weight = inside * part / (outside + (inside - outside) * part)
    low = (1 - weight) * ordered[depth] + weight * ordered[depth + 1]
    high = (1 - weight) * ordered[n - 1 - depth] + weight * ordered[n - 2 - depth]
    return Estimate(find_middle(ordered), low, high, n, level)


def _widen(values: Sequence[float], level: float) -> Estimate | None:
    """Return the median with limits as far out as a first-order autoregressive series needs them, at most the range;
    None where nothing hints at correlation.

    The number of values below the median has the variance n / 4 of independent ones times 1 + 2 sum (2 / pi) arcsin(r
    ** k), by the correlation of signs of such a series. That is of normal values, on whatever scale.
    """
    related = autocorrelation(values)
    if not related.is_suspected:
        return None
    ordered, n = sorted(values), len(values)
    spread = math.sqrt(n * _inflate(_correct(related.lag_1, n))) / 2
    depth = max(0, math.floor(n / 2 - NormalDist().inv_cdf((1 + level) / 2) * spread) - 1)
    return Estimate(find_middle(ordered), ordered[depth], ordered[n - 1 - depth], n, level)


def _correct(lag_1: float, n: int) -> float:
    """Return the correlation of the values from that of ranks, without the bias that it has in a short series (M. G.
    Kendall, Note on bias in the estimation of autocorrelation, Biometrika 41, 1954)."""
    of_values = 2 * math.sin(math.pi / 6 * lag_1)
    return min(_LARGEST_CORRELATION, max(0.0, (n * of_values + 1) / (n - 4)))


def _inflate(correlation: float) -> float:
    """Return how many times as large the variance of the number of values below the median is."""
    total, power = 0.0, correlation
    while power > 1e-3:
        total += math.asin(power) * 2 / math.pi
        power *= correlation
    return 1 + 2 * total
