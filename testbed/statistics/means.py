"""Means with Student's interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from msgspec import Struct

from testbed.statistics.correlation import FEWEST_TO_SHOW, autocorrelation, find_inflation
from testbed.statistics.medians import LEVEL

# The fewest values from which a spread is taken: two always lie symmetrically about their mean.
FEWEST_OF_A_MEAN = 3


class MeanEstimate(Struct, frozen=True):
    """The mean of ``n`` values; ``low`` and ``high`` bound the true one with 95 %, None with fewer than three.

    ``effective`` and ``related`` are those of testbed.statistics.medians.Estimate.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    effective: float | None = None
    related: bool = False

    @property
    def is_interval(self) -> bool:
        """Whether the mean has an interval."""
        return self.low is not None

    @property
    def is_widened(self) -> bool:
        """Whether that is wider because neighbours were found to resemble each other."""
        return self.is_interval and self.related and self.effective is not None


def estimate_mean(values: Sequence[float]) -> MeanEstimate:
    """Return the mean of values in their order with its 95 % t interval, from three values on.

    It covers 95 % where the values are roughly normal, and more where neighbours are negatively correlated, as
    differences of readings are that have an error each. Where neighbours have, or may have, something in common, it is
    that of as many values as they are worth (F. W. Zwiers and H. von Storch, Taking serial correlation into account in
    tests of the mean, Journal of Climate 8, 1995). Raises ValueError without values.
    """
    if not values:
        raise ValueError("a mean needs a value")
    n, mean = len(values), fmean(values)
    if n < FEWEST_OF_A_MEAN:
        return MeanEstimate(mean, None, None, n)
    related = autocorrelation(values)
    effective = n / find_inflation(values, related)
    half = find_factor(effective) * math.sqrt(math.fsum((value - mean) ** 2 for value in values) / n)
    return MeanEstimate(mean, mean - half, mean + half, n, effective if n >= FEWEST_TO_SHOW else None, related.found)


def find_factor(effective: float) -> float:
    """Return how many standard deviations of the sample a mean's interval reaches to each side, if the sample counts as
    so many independent values: t(m - 1) / sqrt(m - 1).

    With all of n values that is Student's interval. With fewer, m, it allows for the sample's variance being smaller
    than that of the distribution by a factor of 1 - 1 / m.
    """
    from scipy.special import stdtrit  # 0.1 s; scipy.stats would cost 1.7 s

    return float(stdtrit(effective - 1, (1 + LEVEL) / 2)) / math.sqrt(effective - 1)
