"""Two samples by their ranks: the test of Mann and Whitney, and the shift of Hodges and Lehmann with its interval.

Both come from one distribution, that of the number of pairs in which one sample's value is the smaller (U), so that, of
independent trials, the test rejects exactly the shifts that are not in the interval. scipy has the test, and not the
distribution.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from operator import sub
from statistics import NormalDist, fmean

from testbed.statistics.correlation import FEWEST_TO_SHOW, autocorrelation, find_inflation, rank
from testbed.statistics.medians import LEVEL, Estimate

# Up to so many steps of counting the distribution is exact; beyond, the normal one is the same to four digits.
_EXACT_STEPS = 200_000
_EXACT_SIGNS = 60
# Up to so many differences are held at once; beyond, the wanted one is found by bisection.
_HELD_DIFFERENCES = 1_000_000


@lru_cache(maxsize=64)
def _count_arrangements(n: int, m: int) -> tuple[int, ...]:
    """Return, for u from 0 to n * m // 2, how many arrangements of both samples have a U of at most u.

    The number with exactly u is a coefficient of the Gaussian binomial (Mann and Whitney, On a test of whether one of
    two random variables is stochastically larger than the other, Annals of Mathematical Statistics 18, 1947).
    """
    half = n * m // 2
    counts = [1] + [0] * half
    for i in range(1, n + 1):  # times 1 - x**(m + i), over 1 - x**i: as loops in C, for there are many steps
        counts[m + i :] = map(sub, counts[m + i :], counts)
        for first in range(min(i, half + 1)):
            counts[first::i] = accumulate(counts[first::i])
    return tuple(accumulate(counts))


def find_tail(u: float, n: int, m: int) -> float:
    """Return the probability of a U of at most ``u`` between samples of ``n`` and ``m`` independent values of one
    distribution."""
    n, m = sorted((n, m))
    if u < 0:
        return 0.0
    if n * n * m > _EXACT_STEPS:
        spread = math.sqrt(n * m * (n + m + 1) / 12)
        return NormalDist().cdf((math.floor(u) + 0.5 - n * m / 2) / spread)
    at = math.floor(u)
    arrangements = _count_arrangements(n, m)
    total = math.comb(n + m, n)
    if at < len(arrangements):
        return arrangements[at] / total
    mirrored = n * m - at - 1
    return 1 - (arrangements[mirrored] / total if mirrored >= 0 else 0.0)


def count_smaller(one: Sequence[float], other: Sequence[float]) -> float:
    """Return U: of all pairs those in which the value of ``one`` is the smaller; equal ones count a half."""
    ordered = sorted(other)
    above = sum(len(ordered) - bisect_right(ordered, value) for value in one)
    equal = sum(bisect_right(ordered, value) - bisect_left(ordered, value) for value in one)
    return above + equal / 2


def compare_order(base: Sequence[float], other: Sequence[float], inflation: float = 1.0) -> float:
    """Return the two-sided p value of Mann and Whitney's test that neither sample tends to be larger.

    Exact for samples without ties up to about 58 values each; ties make it larger than it had to be. ``inflation`` is
    how many times as large the variance of U is taken to be as that of independent trials.
    """
    u = _shrink(count_smaller(base, other), len(base) * len(other), inflation)
    return min(1.0, 2 * find_tail(min(u, len(base) * len(other) - u), len(base), len(other)))


def judge_below(base: Sequence[float], other: Sequence[float], inflation: float = 1.0) -> float:
    """Return the one-sided p value: small when the values of ``other`` tend to be smaller than those of ``base``."""
    return find_tail(_shrink(count_smaller(base, other), len(base) * len(other), inflation), len(base), len(other))


def _shrink(u: float, pairs: int, inflation: float) -> float:
    """Return the U that is as many spreads of independent trials from the middle as ``u`` is inflated ones."""
    return u if inflation == 1 else pairs / 2 - (pairs / 2 - u) / math.sqrt(inflation)


def hodges_lehmann(base: Sequence[float], other: Sequence[float], *, level: float = LEVEL) -> Estimate:
    """Return by how much ``other`` is shifted against ``base``: the median of all differences, with its interval.

    (Hodges and Lehmann, Estimates of location based on rank tests, Annals of Mathematical Statistics 34, 1963.) Exact
    where both distributions differ in their location only. ``level`` of the result is what the interval covers; below
    four values on both sides that is less than 95 %. Samples are given in the order of their trials, for the interval
    is wider where neighbours have, or may have, something in common: its limits are as many differences farther from
    the middle as the spread of U is larger then. Raises ValueError for a side without values.
    """
    if not base or not other:
        raise ValueError("a shift needs values on both sides")
    n, m = len(base), len(other)
    depth = _find_depth(n, m, 1 - level)
    covered = max(0.0, 1 - 2 * find_tail(depth, n, m))
    inflation = fmean((find_inflation(base), find_inflation(other)))
    depth = max(0, math.floor((n * m - 1) / 2 - ((n * m - 1) / 2 - depth) * math.sqrt(inflation)))
    middle = ((n * m - 1) // 2, n * m // 2)
    low, before, after, high = _find_differences(base, other, (depth, *middle, n * m - 1 - depth))
    return Estimate(before / 2 + after / 2, low, high, min(n, m), covered, *_find_effective(base, other, inflation))


def _find_effective(base: Sequence[float], other: Sequence[float], inflation: float) -> tuple[float | None, bool]:
    """Return as how many independent trials those of the smaller side count, and whether neighbours are related."""
    n = min(len(base), len(other))
    related = any(autocorrelation(values).found for values in (base, other))
    return (n / inflation if n >= FEWEST_TO_SHOW else None), related


def _find_depth(n: int, m: int, missed: float) -> int:
    """Return how many of the differences on each side may be outside of the interval of independent trials."""
    low, high = 0, n * m // 2
    while low < high:
        at = (low + high + 1) // 2
        if 2 * find_tail(at, n, m) <= missed:
            low = at
        else:
            high = at - 1
    return low


def _find_differences(base: Sequence[float], other: Sequence[float], positions: Sequence[int]) -> list[float]:
    """Return the differences other - base at these positions (from 0) of their ascending order."""
    import numpy as np

    under, above = np.sort(np.asarray(base, dtype=float)), np.sort(np.asarray(other, dtype=float))
    with np.errstate(over="ignore"):
        if len(under) * len(above) <= _HELD_DIFFERENCES:
            ordered = np.sort(np.subtract.outer(above, under), axis=None)
            return [float(ordered[position]) for position in positions]
        found = []
        for position in positions:
            low, high = float(above[0] - under[-1]), float(above[-1] - under[0])
            while low < (middle := low / 2 + high / 2) < high:
                if int(np.searchsorted(above, under + middle, side="right").sum()) > position:
                    high = middle
                else:
                    low = middle
            found.append(high)
        return found


@lru_cache(maxsize=64)
def _count_signs(n: int) -> tuple[int, ...]:
    """Return, for w from 0 up, how many of the 2**n ways to give 1 to n signs have positive ones that sum up to at most
    w."""
    counts = [1] + [0] * (n * (n + 1) // 2)
    for signed in range(1, n + 1):
        for w in range(len(counts) - 1, signed - 1, -1):
            counts[w] += counts[w - signed]
    return tuple(accumulate(counts))


def _find_sign_tail(w: float, n: int) -> float:
    if n > _EXACT_SIGNS:
        spread = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return NormalDist().cdf((math.floor(w) + 0.5 - n * (n + 1) / 4) / spread)
    counts = _count_signs(n)
    at = min(math.floor(w), len(counts) - 1)
    return counts[at] / 2**n if at >= 0 else 0.0


def judge_signs_below(differences: Sequence[float]) -> float:
    """Return the one-sided p value of Wilcoxon's signed-rank test: small when the differences tend to be negative.

    (F. Wilcoxon, Individual comparisons by ranking methods, Biometrics Bulletin 1, 1945.) Exact up to ``_EXACT_SIGNS``
    differences without ties. One of 0 counts half to each side.
    """
    ranks = rank([abs(difference) for difference in differences])
    positive = sum(
        at if difference > 0 else at / 2 for at, difference in zip(ranks, differences, strict=True) if difference >= 0
    )
    return _find_sign_tail(positive, len(differences))
