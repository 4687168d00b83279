"""What neighbouring trials have in common, and intervals of medians that allow for it.

An interval takes trials as independent. Where one resembles the one before, there are fewer of them than it seems.
Pure Python, for it may be asked while a run decides what to do next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from statistics import NormalDist, fmean

from msgspec import Struct
from msgspec.structs import replace

from testbed.statistics.medians import LEVEL, RISK, Estimate, estimate_median, find_depth, find_middle

# Of fewer trials nothing can be told.
FEWEST_OF_SERIES = 6
# Fewer trials than these cannot show what they have in common: their autocorrelation is about the same whether they are
# independent or have half of their deviations from the trial before (benchmarks/coverage.py; likewise A. Solanas, R.
# Manolov and V. Sierra, Lag-one autocorrelation in short series, Psicologica 31, 2010).
FEWEST_TO_SHOW = 10
# An interval goes by the upper end of the one-sided interval of the correlation that has this confidence. It is the
# least with which intervals cover 94 % from ten trials on (benchmarks/coverage.py).
CONFIDENCE = 0.75
_STANDARD_ERRORS = NormalDist().inv_cdf(CONFIDENCE)
# Batches of a series are as many at least: fewer could not show what they have in common.
_FEWEST_BATCHES = 10
# However much trials have in common, they count as so many independent ones: an interval would have no end. With two,
# Student's would be four times as wide again.
_LEAST_EFFECTIVE = 3.0


class Autocorrelation(Struct, frozen=True):
    """How much a trial has in common with the next one, from -1 to 1: ``lag_1``, of ranks.

    Of independent trials one series in twenty is beyond ``bound``; ``p_value`` is that of so much or more.
    """

    lag_1: float
    bound: float
    p_value: float
    n: int

    @property
    def found(self) -> bool:
        """Whether neighbours have more in common than chance gives."""
        return self.lag_1 > self.bound


def autocorrelation(values: Sequence[float]) -> Autocorrelation:
    """Return the autocorrelation at lag 1 of the values' ranks, with its bound under independence.

    Its mean is -1 / n then; its variance is that of J.-M. Dufour and R. Roy (Some robust exact results on sample
    autocorrelations and tests of randomness, Journal of Econometrics 29, 1985). Fewer than ``FEWEST_OF_SERIES`` values,
    and equal ones, have none.
    """
    n = len(values)
    lag_1 = _correlate_neighbours(rank(values)) if n >= FEWEST_OF_SERIES else None
    if lag_1 is None:
        return Autocorrelation(0.0, 1.0, 1.0, n)
    variance = (5 * n**4 - 14 * n**3 - 9 * n**2 + 26 * n + 16) / (5 * (n - 1) ** 2 * n**2 * (n + 1))
    chance = NormalDist(-1 / n, math.sqrt(variance))
    return Autocorrelation(lag_1, chance.inv_cdf(1 - RISK), 1 - chance.cdf(lag_1), n)


def _correlate_neighbours(values: Sequence[float]) -> float | None:
    """Return the autocorrelation at lag 1; None of values that are all equal."""
    mean = fmean(values)
    total = sum((one - mean) ** 2 for one in values)
    if not total:
        return None
    return sum((one - mean) * (following - mean) for one, following in pairwise(values)) / total


def rank(values: Sequence[float]) -> list[float]:
    """Return the rank of each value, from 1; equal ones share theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks, begin = [0.0] * len(values), 0
    for _, tied in groupby(order, values.__getitem__):
        indices = list(tied)
        begin += len(indices)
        for index in indices:
            ranks[index] = begin - (len(indices) - 1) / 2
    return ranks


def find_inflation(values: Sequence[float], related: Autocorrelation | None = None) -> float:
    """Return how many times as large as that of independent trials the variance of a mean of trials in their order, or
    of their ranks, must be taken to be: at least 1, which fewer than ``FEWEST_TO_SHOW`` have.

    It is that of a first-order autoregressive series, (1 + r) / (1 - r), by the upper bound of r (``CONFIDENCE``),
    whose standard error is taken as 1 / sqrt(n) (M. S. Bartlett, On the theoretical specification and sampling
    properties of autocorrelated time-series, Supplement to the Journal of the Royal Statistical Society 8, 1946). Where
    neighbours are found to resemble each other, that may last longer than such a series has it, as a state of the host
    does below the noise of each trial. Then it is no less than what the means of batches of 2, 4, 8 ... trials vary by
    and have in common (batch means: C. Alexopoulos and A. F. Seila, Output data analysis, in J. Banks, Handbook of
    Simulation, 1998). Who has the values' autocorrelation gives it as ``related``.
    """
    related = related or autocorrelation(values)
    n = related.n
    if n < FEWEST_TO_SHOW or related.bound == 1:
        return 1.0
    of_values = 2 * math.sin(math.pi / 6 * related.lag_1)  # from the correlation of ranks to that of normal values
    found = [_inflate(_correct(of_values, n) + _STANDARD_ERRORS / math.sqrt(n))]
    if related.found:
        found += _inflate_by_batches(rank(values))
    return min(max(found), n / _LEAST_EFFECTIVE)


def _correct(lag_1: float, n: int) -> float:
    """Return the autocorrelation of ``n`` values at lag 1 without the bias that it has in a short series, -(1 + 4 r) /
    n (F. H. C. Marriott and J. A. Pope, Bias in the estimation of autocorrelations, and M. G. Kendall, Note on bias in
    the estimation of autocorrelation, both Biometrika 41, 1954)."""
    return (n * lag_1 + 1) / (n - 4)


def _inflate(correlation: float) -> float:
    return max(1.0, (1 + correlation) / (1 - correlation)) if correlation < 1 else math.inf


def _inflate_by_batches(ranks: Sequence[float]) -> list[float]:
    """Return the inflation by the means of batches, of each size of which there are enough."""
    of_one, size, found = _find_variance(ranks), 2, []
    while (batches := len(ranks) // size) >= _FEWEST_BATCHES:
        begin = len(ranks) - batches * size
        means = [fmean(ranks[at : at + size]) for at in range(begin, len(ranks), size)]
        lag_1 = _correlate_neighbours(means)
        if lag_1 is not None:
            found.append(size * _find_variance(means) / of_one * _inflate(_correct(lag_1, batches)))
        size *= 2
    return found


def _find_variance(values: Sequence[float]) -> float:
    mean = fmean(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _inflate_signs(inflation: float) -> float:
    """Return the inflation of the number of values below the median from that of a mean.

    It is 1 + 2 sum (2 / pi) arcsin(r ** k), by the correlation of signs of a first-order autoregressive series of
    normal values, on whatever scale (W. F. Sheppard, Philosophical Transactions of the Royal Society A 192, 1899).
    """
    correlation = (inflation - 1) / (inflation + 1)
    total, power = 0.0, correlation
    while power > 1e-3:
        total += math.asin(power) * 2 / math.pi
        power *= correlation
    return 1 + 2 * total


def estimate_median_of_series(values: Sequence[float], *, level: float = LEVEL) -> Estimate:
    """Return the median of trials in the order in which they were made, with an interval that is wider by what
    neighbours have, or may have, in common (``find_inflation``), at most their range.

    The result says what that was: ``effective`` and ``related``. Fewer than ``FEWEST_TO_SHOW`` cannot show it, and are
    taken as independent. Raises ValueError without values.
    """
    estimate = estimate_median(values, level=level)
    return _allow(values, estimate, find_depth(len(values), level)[0])


def find_limits(values: Sequence[float], level: float) -> Estimate:
    """Return the median of trials in their order, with limits to be combined with those of another one.

    They cover just ``level``, between two order statistics (T. P. Hettmansperger and S. J. Sheather, Confidence
    intervals based on interpolated order statistics, Statistics and Probability Letters 4, 1986), of independent
    trials: combined intervals that each cover more than they say cover far more. By itself it would cover less than it
    says where the middle of a distribution is empty. Of too few values they are the range, with level 0.
    """
    ordered = sorted(values)
    n = len(ordered)
    depth, covered, narrower = find_depth(n, level)
    whole = Estimate(find_middle(ordered), ordered[0], ordered[-1], n, level)
    if covered < level:
        return replace(whole, level=0.0)
    outside, inside = depth + 1, n - depth - 1
    part = (covered - level) / (covered - narrower)
    return _allow(values, whole, depth + inside * part / (outside + (inside - outside) * part))


def _allow(values: Sequence[float], estimate: Estimate, depth: float) -> Estimate:
    """Return an estimate whose limits lie ``depth`` order statistics from each end if trials are independent, and as
    many times as far from the middle as the number of values below the median varies more."""
    related = autocorrelation(values)
    n, inflation = related.n, find_inflation(values, related)
    ordered, middle = sorted(values), (n - 1) / 2
    at = max(0.0, middle - (middle - depth) * math.sqrt(_inflate_signs(inflation)))
    below, part = math.floor(at), at - math.floor(at)
    low = (1 - part) * ordered[below] + part * ordered[min(below + 1, n - 1)]
    high = (1 - part) * ordered[n - 1 - below] + part * ordered[max(0, n - 2 - below)]
    effective = n / inflation if n >= FEWEST_TO_SHOW else None
    return replace(estimate, low=low, high=high, effective=effective, related=related.found)
