"""Means with Student's interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from msgspec import Struct

from testbed.statistics.medians import LEVEL

# The fewest values from which a spread is taken: two always lie symmetrically about their mean.
FEWEST_OF_A_MEAN = 3


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

    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))  # stdev adds up fractions: slow
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * spread / math.sqrt(n)
    return MeanEstimate(mean, mean - half, mean + half, n)
