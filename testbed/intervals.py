"""Estimates with their intervals, as pure functions of numbers; same numbers, same intervals."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import fmean, linear_regression, median

from msgspec import Struct

LEVEL = 0.95
# The fewest values from which order statistics give a 95 % interval of the median: 1 - 2 / 2**6 = 0.969.
FEWEST = 6
_RESAMPLES = 4000
_SEED = 20080630


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


class Slope(Struct, frozen=True):
    """The change of y per x; ``low`` and ``high`` bound it with 95 %, None with fewer than three points."""

    value: float
    low: float | None
    high: float | None


def median_estimate(values: Sequence[float]) -> Estimate:
    """The median, with the narrowest symmetric interval of order statistics that covers at least 95 %.

    Free of any assumption on the distribution: the number of values below the true median is binomial(n, 1/2)
    (Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2). Raises ValueError without values.
    """
    if not values:
        raise ValueError("a median needs a value")
    ordered = sorted(values)
    n = len(ordered)
    depth, tail = 0, 0.5**n  # tail: P(at most `depth` values lie below the median)
    while True:
        deeper = tail + math.comb(n, depth + 1) * 0.5**n
        if 1 - 2 * deeper < LEVEL:
            break
        depth, tail = depth + 1, deeper
    return Estimate(median(ordered), ordered[depth], ordered[n - 1 - depth], n, max(0.0, 1 - 2 * tail))


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Estimate:
    """The ratio of two medians of positive values, with a percentile bootstrap interval of 95 %.

    Each side is resampled on its own (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13), from a
    fixed seed. With fewer than ``FEWEST`` values on a side: the range of the possible ratios, with level 0.
    """
    value = median(numerator) / median(denominator)
    n = min(len(numerator), len(denominator))
    if n < FEWEST:
        return Estimate(value, min(numerator) / max(denominator), max(numerator) / min(denominator), n, 0.0)
    source = random.Random(_SEED)
    ratios = sorted(
        median(source.choices(numerator, k=len(numerator))) / median(source.choices(denominator, k=len(denominator)))
        for _ in range(_RESAMPLES)
    )
    cut = int((1 - LEVEL) / 2 * _RESAMPLES)
    return Estimate(value, ratios[cut], ratios[-1 - cut], n, LEVEL)


def slope(x: Sequence[float], y: Sequence[float]) -> Slope:
    """The slope of the least-squares line with its 95 % t interval.

    Interval: slope +- t(n - 2) * sqrt(SSE / (n - 2) / Sxx) (Draper and Smith, Applied Regression Analysis, 3rd ed.,
    section 1.4). It takes the points' deviations as independent. Raises ValueError without two different x.
    """
    if len(set(x)) < 2:
        raise ValueError("a slope needs two different x")
    line = linear_regression(x, y)
    freedom = len(x) - 2
    if freedom < 1:
        return Slope(line.slope, None, None)
    from scipy.special import stdtrit  # 0.1 s; scipy.stats would cost 1.7 s

    centre = fmean(x)
    residuals = math.fsum((b - line.intercept - line.slope * a) ** 2 for a, b in zip(x, y, strict=True))
    spread = math.fsum((a - centre) ** 2 for a in x)
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * math.sqrt(residuals / freedom / spread)
    return Slope(line.slope, line.slope - half, line.slope + half)
