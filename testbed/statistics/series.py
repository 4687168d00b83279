"""Trials in the order in which they were made: warm-up and drift.

Pure Python, for it may be asked while a run decides what to do next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, combinations, pairwise
from statistics import NormalDist, median

from msgspec import Struct

from testbed.statistics.correlation import FEWEST_OF_SERIES
from testbed.statistics.medians import RISK, find_middle
from testbed.statistics.ranks import compare_order

# A trial so many times as far from the median of the later ones as any of these is warm-up, however few trials there
# are: a test by ranks alone could tell a single first trial from others only among forty.
FAR = 5.0
# Whatever takes more trials than these to go away is no warm-up.
_LONGEST_WARMUP = 100
# So many change points are tried before there is none: the likeliest ones lie side by side.
_TRIED = 3
# A longer series is judged by the medians of so many equal parts.
_PARTS = 500
# Up to so many values the test of Mann and Kendall is exact.
_EXACT_KENDALL = 30
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


def find_warmup(values: Sequence[float]) -> int:
    """Return how many of the first values are warm-up, 0 for none: a change point within the first third.

    It is where the values before and after differ most by the test of Mann and Whitney, adjusted for the number of
    points that are tried, and those after do not drift: what never ends is no warm-up. Or it is where all before are
    ``FAR`` times as far from the median of those after as any of these.
    """
    if len(values) < FEWEST_OF_SERIES:
        return 0
    longest = min(len(values) // 3, _LONGEST_WARMUP)
    p_values = {k: compare_order(values[:k], values[k:]) for k in range(1, longest + 1)}
    differing = [k for k in sorted(p_values, key=p_values.__getitem__) if p_values[k] * longest <= RISK]
    if differing:
        return next((k for k in differing[:_TRIED] if not judge_drift(values[k:]).found), 0)
    return max((k for k in p_values if _is_far(values[:k], values[k:])), default=0)


def _is_far(first: Sequence[float], rest: Sequence[float]) -> bool:
    typical = find_middle(sorted(rest))
    limit = FAR * max(abs(value - typical) for value in rest)
    return min(first) > typical + limit or max(first) < typical - limit


def judge_drift(values: Sequence[float]) -> Drift:
    """Return the drift over a series: the slope of Theil and Sen, judged by the test of Mann and Kendall.

    (P. K. Sen, Estimates of the regression coefficient based on Kendall's tau, Journal of the American Statistical
    Association 63, 1968.) The test takes trials as independent, so that a series that wanders is often found to drift
    (benchmarks/coverage.py): both are reasons to compare within blocks. A series of more than ``_PARTS`` values is
    taken by the medians of as many parts.
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
