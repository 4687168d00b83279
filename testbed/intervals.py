"""Estimates with their intervals, as pure functions of numbers; same numbers, same intervals."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from statistics import fmean, stdev

from msgspec import Struct

LEVEL = 0.95
_ONE_IN = 20  # a 95 % interval misses one time in so many
# The fewest values from which order statistics give a 95 % interval of the median: 1 - 2 / 2**6 = 0.969.
FEWEST = 6
# The fewest values from which a spread is taken: two always lie symmetrically about their mean.
FEWEST_OF_A_MEAN = 3
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


class MeanEstimate(Struct, frozen=True):
    """The mean of ``n`` values; ``low`` and ``high`` bound the true one with 95 %, None with fewer than three."""

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def is_interval(self) -> bool:
        """Whether the mean has an interval."""
        return self.low is not None


def estimate_median(values: Sequence[float]) -> Estimate:
    """Return the median, with the narrowest symmetric interval of order statistics that covers at least 95 %.

    Free of any assumption on the distribution: the number of values below the true median is binomial(n, 1/2)
    (Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2). Counted in whole numbers, for beyond 1,029
    values 2**n is no float. Raises ValueError without values.
    """
    if not values:
        raise ValueError("a median needs a value")
    ordered = sorted(values)
    n = len(ordered)
    depth, tail = 0, 1  # tail: of 2**n equally likely patterns those with at most `depth` values below the median
    term = n
    while _ONE_IN * 2 * (tail + term) <= 2**n:
        depth, tail = depth + 1, tail + term
        term = term * (n - depth) // (depth + 1)
    return Estimate(_middle(ordered), ordered[depth], ordered[n - 1 - depth], n, max(0.0, 1 - 2 * tail / 2**n))


def _middle(ordered: Sequence[float]) -> float:
    """Return the median of ascending values; each is halved before they are added, for the sum of large ones is no
    float."""
    n = len(ordered)
    return ordered[n // 2] if n % 2 else ordered[n // 2 - 1] / 2 + ordered[n // 2] / 2


def estimate_median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Estimate:
    """Return the ratio of two medians of positive values, with a percentile bootstrap interval of 95 %.

    Each side is resampled on its own (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13), from a
    fixed seed. With fewer than ``FEWEST`` values on a side: the range of the possible ratios, with level 0. Raises
    ValueError for values that have no ratio.
    """
    if not numerator or not denominator or min(*numerator, *denominator, 1) <= 0:
        raise ValueError("a ratio needs positive values on both sides")
    above, under = sorted(numerator), sorted(denominator)
    value = _middle(above) / _middle(under)
    n = min(len(above), len(under))
    if n < FEWEST:
        return Estimate(value, above[0] / under[-1], above[-1] / under[0], n, 0.0)
    source = random.Random(_SEED)
    ratios = sorted(
        _middle(sorted(source.choices(above, k=len(above)))) / _middle(sorted(source.choices(under, k=len(under))))
        for _ in range(_RESAMPLES)
    )
    cut = int((1 - LEVEL) / 2 * _RESAMPLES)
    return Estimate(value, ratios[cut], ratios[-1 - cut], n, LEVEL)


def estimate_mean(values: Sequence[float]) -> MeanEstimate:
    """Return the mean with its 95 % t interval, mean +- t(n - 1) * s / sqrt(n), from three values on.

    It covers 95 % where the values are independent and roughly normal, and more where neighbours are negatively
    correlated, as differences of readings are that have an error each. Raises ValueError without values.
    """
    if not values:
        raise ValueError("a mean needs a value")
    n, mean = len(values), fmean(values)
    if n < FEWEST_OF_A_MEAN:
        return MeanEstimate(mean, None, None, n)
    from scipy.special import stdtrit  # 0.1 s; scipy.stats would cost 1.7 s

    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * stdev(values, mean) / math.sqrt(n)
    return MeanEstimate(mean, mean - half, mean + half, n)
