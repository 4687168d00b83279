"""Medians with their intervals, and the ratio and difference of two: distribution-free, and no chance in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from msgspec import Struct

LEVEL = 0.95
# The fewest values from which order statistics give a 95 % interval of the median: 1 - 2 / 2**6 = 0.969.
FEWEST = 6
# Of the largest power of e that is a float.
_LARGEST_EXPONENT = 709.0


class Estimate(Struct, frozen=True):
    """A value, with an interval from ``low`` to ``high`` that covers the true one with probability ``level``.

    ``n`` is the number of trials behind it. With fewer than ``FEWEST`` the interval is the trials' range, and
    ``level`` is what that range really covers (0 for a single trial); it is then no 95 % interval.
    """

    value: float
    low: float
    high: float
    n: int
    level: float

    @property
    def is_interval(self) -> bool:
        """Whether it is an interval of (at least) 95 %, and not merely the range of a few trials."""
        return self.level >= LEVEL


def estimate_median(values: Sequence[float], *, level: float = LEVEL) -> Estimate:
    """Return the median, with the narrowest symmetric interval of order statistics that covers at least ``level``.

    Free of any assumption on the distribution: the number of values below the true median is binomial(n, 1/2)
    (Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2). It assumes that the values are independent.
    Raises ValueError without values.
    """
    if not values:
        raise ValueError("a median needs a value")
    ordered = sorted(values)
    n = len(ordered)
    depth, covered, _ = find_depth(n, level)
    return Estimate(find_middle(ordered), ordered[depth], ordered[n - 1 - depth], n, covered)


@lru_cache(maxsize=1024)
def find_depth(n: int, level: float) -> tuple[int, float, float]:
    """Return how many of ``n`` values lie beyond each limit of the median's interval, what that interval covers, and
    what the next narrower one does.

    Counted in whole numbers, for beyond 1,029 values 2**n is no float.
    """
    missed = Fraction(1 - level).limit_denominator(10**6)
    most = 2**n * missed.numerator
    depth, tail = 0, 1  # tail: of 2**n equally likely patterns those with at most `depth` values below the median
    term = n
    while missed.denominator * 2 * (tail + term) <= most:
        depth, tail = depth + 1, tail + term
        term = term * (n - depth) // (depth + 1)
    covered, narrower = (max(0.0, 1 - float(Fraction(2 * of, 2**n))) for of in (tail, tail + term))
    return depth, covered, narrower


def find_middle(ordered: Sequence[float]) -> float:
    """Return the median of ascending values; each is halved before they are added, for the sum of large ones is no
    float."""
    n = len(ordered)
    return ordered[n // 2] if n % 2 else ordered[n // 2 - 1] / 2 + ordered[n // 2] / 2


def estimate_median_difference(
    minuend: Sequence[float], subtrahend: Sequence[float], *, level: float = LEVEL
) -> Estimate:
    """Return the difference of two medians with its interval, from the intervals of both.

    They are combined as Zou and Donner have it (Construction of confidence limits about effect measures: a general
    approach, Statistics in Medicine 27, 2008, equation 7): each limit is as far away as the root of the sum of both
    squared distances. Unlike a bootstrap's, there is no chance in it. With fewer than ``FEWEST`` on a side: the range
    of possible differences, with level 0. Raises ValueError for a side without values.
    """
    if not minuend or not subtrahend:
        raise ValueError("a difference of medians needs values on both sides")
    one, other = _find_limits(minuend, level), _find_limits(subtrahend, level)
    value, n = one.value - other.value, min(one.n, other.n)
    if not one.level or not other.level:
        return Estimate(value, one.low - other.high, one.high - other.low, n, 0.0)
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, value - below, value + above, n, level)


def estimate_median_ratio(
    numerator: Sequence[float], denominator: Sequence[float], *, level: float = LEVEL
) -> Estimate:
    """Return the ratio of two medians of positive values with its interval: as that of a difference, in logarithms.

    With fewer than ``FEWEST`` values on a side: the range of the possible ratios, with level 0. Raises ValueError for
    values that have no ratio.
    """
    if not numerator or not denominator or min(*numerator, *denominator, 1) <= 0:
        raise ValueError("a ratio needs positive values on both sides")
    above, under = _find_limits(numerator, level), _find_limits(denominator, level)
    value, n = above.value / under.value, min(above.n, under.n)
    if not above.level or not under.level:
        return Estimate(value, above.low / under.high, above.high / under.low, n, 0.0)
    down = math.hypot(_log_ratio(above.value, above.low), _log_ratio(under.high, under.value))
    up = math.hypot(_log_ratio(above.high, above.value), _log_ratio(under.value, under.low))
    return Estimate(value, value * math.exp(-down), value * math.exp(min(up, _LARGEST_EXPONENT)), n, level)


def _find_limits(values: Sequence[float], level: float) -> Estimate:
    """Return a median with limits that cover just ``level``, between two order statistics; the range, with level 0, of
    too few values.

    T. P. Hettmansperger and S. J. Sheather, Confidence intervals based on interpolated order statistics, Statistics and
    Probability Letters 4, 1986. What is combined with another interval must not cover more than it says, or both
    together cover far more. By itself it would cover less than it says where the middle of a distribution is empty.
    """
    ordered = sorted(values)
    n = len(ordered)
    depth, covered, narrower = find_depth(n, level)
    if covered < level:
        return Estimate(find_middle(ordered), ordered[0], ordered[-1], n, 0.0)
    outside, inside = depth + 1, n - depth - 1
    part = (covered - level) / (covered - narrower)
    weight = inside * part / (outside + (inside - outside) * part)
    low = (1 - weight) * ordered[depth] + weight * ordered[depth + 1]
    high = (1 - weight) * ordered[n - 1 - depth] + weight * ordered[n - 2 - depth]
    return Estimate(find_middle(ordered), low, high, n, level)


def _log_ratio(high: float, low: float) -> float:
    return math.log(high) - math.log(low)
