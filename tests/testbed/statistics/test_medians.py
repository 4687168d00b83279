"""Medians and their intervals against published tables and by simulation."""

from __future__ import annotations

import random

import pytest

from testbed.statistics import FEWEST, estimate_median


@pytest.mark.parametrize(
    ("n", "low", "high", "level"),
    # The order statistics and coverages of tables of the sign test, two-sided, at least 95 %.
    [(6, 1, 6, 0.9688), (8, 1, 8, 0.9922), (10, 2, 9, 0.9785), (15, 4, 12, 0.9648), (20, 6, 15, 0.9586)],
)
def test_the_median_has_the_interval_of_the_sign_test(n: int, low: int, high: int, level: float) -> None:
    values = [float(value) for value in range(1, n + 1)]
    random.Random(1).shuffle(values)
    estimate = estimate_median(values)
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == ((n + 1) / 2, low, high, n)
    assert estimate.level == pytest.approx(level, abs=5e-5)
    assert estimate.is_interval


@pytest.mark.parametrize(("n", "level"), [(1, 0.0), (2, 0.5), (3, 0.75), (5, 0.9375)])
def test_few_values_give_their_range_and_say_what_it_covers(n: int, level: float) -> None:
    assert n < FEWEST
    estimate = estimate_median([5.0, 1.0, 4.0, 2.0, 3.0][:n])
    assert (estimate.low, estimate.high) == (min([5.0, 1.0, 4.0, 2.0, 3.0][:n]), 5.0)
    assert estimate.level == pytest.approx(level)
    assert not estimate.is_interval


def test_the_intervals_of_a_median_cover_it_as_often_as_they_say() -> None:
    chance = random.Random(3)
    true_median = 0.6931471805599453  # of the exponential distribution, which is far from symmetric
    hits = 0
    for _ in range(2000):
        estimate = estimate_median([chance.expovariate(1) for _ in range(10)])
        hits += estimate.low <= true_median <= estimate.high
    assert hits / 2000 == pytest.approx(0.9785, abs=0.01)


def test_a_median_without_values_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a value"):
        estimate_median([])


def test_more_values_than_a_float_can_count_patterns_of() -> None:
    """Beyond 1,029 values 2**n is no float; the limits are the binomial's, by scipy's own count."""
    from scipy.special import bdtrik

    for n in (1029, 1030, 5000):
        estimate = estimate_median([float(value) for value in range(1, n + 1)])
        depth = int(bdtrik(0.025, n, 0.5))
        assert (estimate.low, estimate.high) == (depth + 1, n - depth)
        assert 0.95 <= estimate.level < 0.955
        assert estimate.is_interval


def test_a_sum_that_is_no_float_does_not_matter() -> None:
    assert estimate_median([1e308] * 4).value == 1e308


def test_another_level_has_other_order_statistics() -> None:
    values = [float(value) for value in range(1, 11)]
    assert (estimate_median(values, level=0.9).low, estimate_median(values, level=0.99).low) == (2, 1)
    assert estimate_median(values, level=0.85).level == pytest.approx(0.8906, abs=1e-4)
