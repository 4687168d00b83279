"""Trials in the order in which they were made: warm-up, drift, and what neighbours have in common.

Pure Python, for it may be asked while a run decides what to do next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, combinations, pairwise
from statistics import NormalDist, median

from msgspec import Struct

from testbed.statistics.medians import LEVEL, Estimate, estimate_median, find_middle
from testbed.statistics.ranks import compare_order, rank

# A chance of one in twenty is taken that a series without any warm-up, drift or correlation is said to have some.
RISK = 0.05
# A correlation that one independent series in five has is reason enough to widen an interval: what is found with less
# risk is found too late (benchmarks/coverage.py).
SUSPICION = 0.2
# Of fewer trials nothing can be told.
FEWEST_OF_SERIES = 6
# Of fewer trials no interval can be widened for their correlation: there is nothing left to widen it to.
FEWEST_TO_WIDEN = 20
# A trial so many times as far from the median of the later ones as any of these is warm-up, however few trials there
# are: a test by ranks alone could tell a single first trial from others only among forty.
FAR = 3.0
# Whatever takes more trials than these to go away is no warm-up.
_LONGEST_WARMUP = 100
# A longer series is judged by the medians of so many equal parts.
_PARTS = 500
# Up to so many values the test of Mann and Kendall is exact.
_EXACT_KENDALL = 30
# Beyond, correlation is not believed, for an interval would have no end.
_LARGEST_CORRELATION = 0.95
_NORMAL = NormalDist()


class Drift(Struct, frozen=True):
    """What a figure did over a run: ``change`` from its first trial to its last, in the figure's own unit, and as a
    fraction of the median (``relative``, 0 for a median of 0); ``p_value`` that there is none."""

    change: float
    relative: float
    p_value: float
    n: int

    @property
    def found(self) -> bool:
        """Whether a drift was found."""
        return self.p_value <= RISK


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


def find_warmup(values: Sequence[float]) -> int:
    """Return how many of the first values are warm-up, 0 for none: a change point within the first third.

    It is where the values before and after differ most by the test of Mann and Whitney, adjusted for the number of
    points that are tried; or where all before are ``FAR`` times as far from the median of those after as any of these.
    """
    if len(values) < FEWEST_OF_SERIES:
        return 0
    longest = min(len(values) // 3, _LONGEST_WARMUP)
    p_values = [compare_order(values[:k], values[k:]) for k in range(1, longest + 1)]
    if min(p_values) * len(p_values) <= RISK:
        return p_values.index(min(p_values)) + 1
    return max((k for k in range(1, len(p_values) + 1) if _is_far(values[:k], values[k:])), default=0)


def _is_far(first: Sequence[float], rest: Sequence[float]) -> bool:
    typical = find_middle(sorted(rest))
    limit = FAR * max(abs(value - typical) for value in rest)
    return min(first) > typical + limit or max(first) < typical - limit


def judge_drift(values: Sequence[float]) -> Drift:
    """Return the drift over a series: the slope of Theil and Sen, judged by the test of Mann and Kendall.

    (P. K. Sen, Estimates of the regression coefficient based on Kendall's tau, Journal of the American Statistical
    Association 63, 1968.) A series of more than ``_PARTS`` values is taken by the medians of as many parts.
    """
    n = len(values)
    parts = _divide(values)
    if len(parts) < 2:
        return Drift(0.0, 0.0, 1.0, n)
    numbered = list(enumerate(parts))
    slopes = [(b - a) / (j - i) for (i, a), (j, b) in combinations(numbered, 2)]
    change, typical = median(slopes) * (len(parts) - 1), median(parts)
    score = sum((slope > 0) - (slope < 0) for slope in slopes)
    return Drift(change, change / abs(typical) if typical else 0.0, _find_kendall(score, parts), n)


def _divide(values: Sequence[float]) -> list[float]:
    """Return the values, or of too many the medians of equal parts."""
    if len(values) <= _PARTS:
        return list(values)
    limits = [len(values) * part // _PARTS for part in range(_PARTS + 1)]
    return [median(values[begin:end]) for begin, end in pairwise(limits)]


def _find_kendall(score: int, values: Sequence[float]) -> float:
    """Return the two-sided p value of a score: ascending pairs less descending ones."""
    n, pairs = len(values), len(values) * (len(values) - 1) // 2
    if n <= _EXACT_KENDALL:  # equal values make it larger than it had to be
        return min(1.0, 2 * _count_inversions(n)[(pairs - abs(score)) // 2] / math.factorial(n))
    ties = [values.count(value) for value in set(values)]
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)) / 18
    return 2 * (1 - _NORMAL.cdf(max(0.0, (abs(score) - 1) / math.sqrt(variance)))) if variance else 1.0


@lru_cache(maxsize=_EXACT_KENDALL)
def _count_inversions(n: int) -> tuple[int, ...]:
    """Return, for k from 0 up, how many orders of n values have at most k descending pairs (M. G. Kendall, A new
    measure of rank correlation, Biometrika 30, 1938)."""
    counts = [1]
    for i in range(2, n + 1):
        sums = [0, *accumulate(counts)]
        most = len(counts) + i - 1
        counts = [sums[min(k + 1, len(counts))] - sums[max(0, k + 1 - i)] for k in range(most)]
    return tuple(accumulate(counts))


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


def estimate_median_of_series(values: Sequence[float]) -> Estimate:
    """Return the median of trials in the order in which they were made, with an interval of 95 % for what neighbours
    have in common.

    Where they may have something in common, the limits are as far out as the order statistics of a first-order
    autoregressive series have to be: the number of values below the median has the variance n / 4 of independent ones
    times 1 + 2 sum (2 / pi) arcsin(r ** k), the correlation of signs of such a series (for normal values; the number
    does not depend on their scale). Of fewer than ``FEWEST_TO_WIDEN`` trials that correlate beyond chance there is no
    interval, only the range, with level 0. Raises ValueError without values.
    """
    estimate, related = estimate_median(values), autocorrelation(values)
    if not related.is_suspected or not estimate.is_interval:
        return estimate
    ordered, n = sorted(values), len(values)
    if n < FEWEST_TO_WIDEN:
        return Estimate(estimate.value, ordered[0], ordered[-1], n, 0.0) if related.found else estimate
    spread = math.sqrt(n * _inflate(_correct(related.lag_1, n))) / 2
    depth = max(0, math.floor(n / 2 - _NORMAL.inv_cdf((1 + LEVEL) / 2) * spread) - 1)
    return Estimate(estimate.value, ordered[depth], ordered[n - 1 - depth], n, LEVEL)


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
