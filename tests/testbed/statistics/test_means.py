"""Means and Student's interval against published values."""

from __future__ import annotations

import pytest

from testbed.statistics import MeanEstimate, estimate_mean


def test_the_mean_has_the_interval_of_student() -> None:
    """Student's own data (Biometrika 6, 1908, p 20): extra hours of sleep of ten patients."""
    sleep = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    estimate = estimate_mean(sleep)
    assert estimate.value == pytest.approx(0.75)
    assert estimate.n == 10
    assert estimate.low == pytest.approx(0.75 - 2.2622 * 1.78901 / 10**0.5, abs=1e-4)
    assert estimate.high == pytest.approx(0.75 + 2.2622 * 1.78901 / 10**0.5, abs=1e-4)
    assert estimate.is_interval


def test_fewer_than_three_values_have_a_mean_without_an_interval() -> None:
    assert estimate_mean([1.0, 3.0]) == MeanEstimate(2.0, None, None, 2)
    assert not estimate_mean([5.0]).is_interval
    with pytest.raises(ValueError, match="needs a value"):
        estimate_mean([])
