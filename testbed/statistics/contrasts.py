"""The ratio and the difference of two medians with their intervals, without chance.

Samples are given in the order in which their trials were made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from testbed.statistics.correlation import find_limits
from testbed.statistics.medians import LEVEL, Estimate

# Of the largest power of e that is a float.
_LARGEST_EXPONENT = 709.0


def estimate_median_difference(
    minuend: Sequence[float], subtrahend: Sequence[float], *, level: float = LEVEL
) -> Estimate:
    """Return the difference of two medians with its interval, from the intervals of both.

    They are combined as Zou and Donner have it (Construction of confidence limits about effect measures: a general
    approach, Statistics in Medicine 27, 2008): each limit is as far away as the root of the sum of both
    squared distances. Unlike a bootstrap's, there is no chance in it. With fewer than ``FEWEST`` on a side: the range
    of possible differences, with level 0. Raises ValueError for a side without values.
    """
    if not minuend or not subtrahend:
        raise ValueError("a difference of medians needs values on both sides")
    one, other = find_limits(minuend, level), find_limits(subtrahend, level)
    value, n = one.value - other.value, min(one.n, other.n)
    if not one.level or not other.level:
        return Estimate(value, one.low - other.high, one.high - other.low, n, 0.0)
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Estimate(value, value - below, value + above, n, level, *_join(one, other))


def estimate_median_ratio(
    numerator: Sequence[float], denominator: Sequence[float], *, level: float = LEVEL
) -> Estimate:
    """Return the ratio of two medians of positive values with its interval: as that of a difference, in logarithms.

    With fewer than ``FEWEST`` values on a side: the range of the possible ratios, with level 0. Raises ValueError for
    values that have no ratio.
    """
    if not numerator or not denominator or min(*numerator, *denominator, 1) <= 0:
        raise ValueError("a ratio needs positive values on both sides")
    above, under = find_limits(numerator, level), find_limits(denominator, level)
    value, n = above.value / under.value, min(above.n, under.n)
    if not above.level or not under.level:
        return Estimate(value, above.low / under.high, above.high / under.low, n, 0.0)
    down = math.hypot(_log_ratio(above.value, above.low), _log_ratio(under.high, under.value))
    up = math.hypot(_log_ratio(above.high, above.value), _log_ratio(under.value, under.low))
    high = value * math.exp(min(up, _LARGEST_EXPONENT))
    return Estimate(value, value * math.exp(-down), high, n, level, *_join(above, under))


def _join(one: Estimate, other: Estimate) -> tuple[float | None, bool]:
    """Return as how many independent trials those of the side that has fewer count, and whether any are related."""
    known = [side.effective for side in (one, other) if side.effective is not None]
    return (min(known) if len(known) == 2 else None), one.related or other.related


def _log_ratio(high: float, low: float) -> float:
    return math.log(high) - math.log(low)
