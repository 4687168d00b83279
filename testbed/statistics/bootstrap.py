"""BCa intervals for statistics that have no interval by order statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

from testbed.statistics.correlation import autocorrelation, find_inflation
from testbed.statistics.means import find_factor
from testbed.statistics.medians import LEVEL, Estimate

# Of fewer values the bootstrap's interval of a skewed distribution's mean is too short (benchmarks/coverage.py).
FEWEST_OF_BCA = 50
_RESAMPLES = 4000
_SEED = 20080630
# Resamples are made so many values at a time: bounds memory.
_VALUES_AT_ONCE = 2_000_000


def estimate_bca(values: Sequence[float], statistic: Callable[..., Any]) -> Estimate:
    """Return a statistic with its bias-corrected and accelerated bootstrap interval of 95 %, from a fixed seed.

    ``statistic`` takes an array and ``axis``, as numpy's do. The interval is that of B. Efron (Better bootstrap
    confidence intervals, Journal of the American Statistical Association 82, 1987), by scipy.stats.bootstrap, of a
    level that is higher by as much as Student's interval is wider than the normal one (T. Hesterberg, What teachers
    should know about the bootstrap, The American Statistician 69, 2015). Values are given in their order: where
    neighbours have, or may have, something in common, it is wider by as much as Student's. With fewer than
    ``FEWEST_OF_BCA`` values: their range, with level 0. Raises ValueError without values.
    """
    if not values:
        raise ValueError("a bootstrap needs values")
    import numpy as np

    sample = np.asarray(values, dtype=float)
    value = float(statistic(sample, axis=-1))
    if len(values) < FEWEST_OF_BCA:
        return Estimate(value, min(values), max(values), len(values), 0.0)
    if min(values) == max(values):
        return Estimate(value, value, value, len(values), LEVEL)
    from scipy.stats import bootstrap

    interval = bootstrap(
        (sample,),
        statistic,
        n_resamples=_RESAMPLES,
        batch=max(1, _VALUES_AT_ONCE // len(values)),
        confidence_level=_expand(len(values)),
        method="BCa",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    related = autocorrelation(values)
    effective = len(values) / find_inflation(values, related)
    wider = find_factor(effective) / find_factor(len(values))
    low, high = (value + wider * (float(limit) - value) for limit in (interval.low, interval.high))
    return Estimate(value, low, high, len(values), LEVEL, effective, related.found)


def _expand(n: int) -> float:
    from scipy.special import stdtrit

    return 1 - 2 * NormalDist().cdf(-float(stdtrit(n - 1, (1 + LEVEL) / 2)) * math.sqrt(n / (n - 1)))
