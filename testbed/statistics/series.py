"""Trials in the order in which they were made: warm-up, drift, and what neighbours have in common.

Pure Python, for it may be asked while a run decides what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from statistics import NormalDist, median

from msgspec import Struct

from testbed.statistics.ranks import compare_order, rank

# A chance of one in twenty is taken that a series without any warm-up, drift or correlation is said to have some.
RISK = 0.05
# Of fewer trials nothing can be told.
FEWEST_OF_SERIES = 6
_CDF = NormalDist().cdf


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
    """How much a trial has in common with the next one, from -1 to 1; beyond ``bound`` it is more than chance."""

    lag_1: float
    bound: float
    n: int

    @property
    def found(self) -> bool:
        """Whether neighbours have more in common than chance gives: then an interval is too short."""
        return self.n >= FEWEST_OF_SERIES and self.lag_1 > self.bound


def find_warmup(values: Sequence[float]) -> int:
    """Return how many of the first values are warm-up, 0 for none: a change point in the first third."""
    n = len(values)
    best, least = 0, 1.0
    for k in range(1, n // 3 + 1):
        p_value = compare_order(values[:k], values[k:])
        if p_value < least:
            best, least = k, p_value
    return best if least * max(1, n // 3) <= RISK else 0


def judge_drift(values: Sequence[float]) -> Drift:
    """Return the drift over a series: the slope of Theil and Sen, judged by the test of Mann and Kendall."""
    n = len(values)
    if n < 2:
        return Drift(0.0, 0.0, 1.0, n)
    slopes = [(values[j] - values[i]) / (j - i) for i in range(n) for j in range(i + 1, n)]
    change = median(slopes) * (n - 1)
    score = sum((slope > 0) - (slope < 0) for slope in slopes)
    spread = sqrt(n * (n - 1) * (2 * n + 5) / 18)
    p_value = 2 * (1 - _CDF(max(0.0, (abs(score) - 1) / spread)))
    typical = median(values)
    return Drift(change, change / abs(typical) if typical else 0.0, p_value, n)


def autocorrelation(values: Sequence[float]) -> Autocorrelation:
    """Return the autocorrelation at lag 1 of the values' ranks, with its bound."""
    n = len(values)
    ranks = rank(values)
    mean = (n + 1) / 2
    total = sum((one - mean) ** 2 for one in ranks)
    if not total:
        return Autocorrelation(0.0, 1.0, n)
    lag_1 = sum((one - mean) * (next_one - mean) for one, next_one in pairwise(ranks)) / total
    return Autocorrelation(lag_1, -1 / n + NormalDist().inv_cdf(1 - RISK) / sqrt(n), n)
