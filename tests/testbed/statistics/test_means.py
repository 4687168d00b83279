"""Means and Student's interval against published values."""

from __future__ import annotations

import random
from statistics import pstdev

import pytest

from testbed.statistics import MeanEstimate, estimate_mean


def test_the_mean_has_the_interval_of_student() -> None:
    """Student's own data (Biometrika 6, 1908, p 20): extra hours of sleep of ten patients, in an order in which
    neighbours differ."""
    sleep = [-1.6, 3.7, -1.2, 3.4, -0.2, 2.0, -0.1, 0.8, 0.0, 0.7]
    estimate = estimate_mean(sleep)
    assert estimate.value == pytest.approx(0.75)
    assert estimate.n == 10
    assert estimate.low == pytest.approx(0.75 - 2.2622 * 1.78901 / 10**0.5, abs=1e-4)
    assert estimate.high == pytest.approx(0.75 + 2.2622 * 1.78901 / 10**0.5, abs=1e-4)
    assert estimate.is_interval
    assert (estimate.effective, estimate.related) == (10, False)


def test_a_mean_of_values_that_wander_counts_them_as_fewer() -> None:
    """With m independent values the interval is t(m - 1) / sqrt(m - 1) deviations wide."""
    from scipy.stats import t

    chance = random.Random(1)
    values = [chance.gauss(0, 1)]
    while len(values) < 60:
        values.append(0.6 * values[-1] + chance.gauss(0, 0.8))
    estimate = estimate_mean(values)
    assert estimate.related and estimate.is_widened and estimate.low is not None
    assert estimate.effective is not None and 3 < estimate.effective < 25
    factor = t.ppf(0.975, estimate.effective - 1) / (estimate.effective - 1) ** 0.5
    assert estimate.value - estimate.low == pytest.approx(factor * pstdev(values))


def test_few_values_are_taken_as_independent() -> None:
    estimate = estimate_mean([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    assert estimate.related and not estimate.is_widened and estimate.effective is None
    assert estimate.high == pytest.approx(4 + 2.4469 * (28 / 6 / 7) ** 0.5, abs=1e-3)


def test_fewer_than_three_values_have_a_mean_without_an_interval() -> None:
    assert estimate_mean([1.0, 3.0]) == MeanEstimate(2.0, None, None, 2)
    assert not estimate_mean([5.0]).is_interval
    with pytest.raises(ValueError, match="needs a value"):
        estimate_mean([])
