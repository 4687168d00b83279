"""Estimates and intervals against published values and by simulation."""

from __future__ import annotations

import random
from statistics import median

import pytest

from testbed.intervals import FEWEST, median_estimate, median_ratio, slope

# F. J. Anscombe, Graphs in Statistical Analysis, The American Statistician 27 (1973): slope 0.500, its standard
# error 0.118, for which t with 9 degrees of freedom (2.262) gives the interval.
ANSCOMBE_X = (10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5)
ANSCOMBE_Y = (8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68)


@pytest.mark.parametrize(
    ("n", "low", "high", "level"),
    # The order statistics and coverages of tables of the sign test, two-sided, at least 95 %.
    [(6, 1, 6, 0.9688), (8, 1, 8, 0.9922), (10, 2, 9, 0.9785), (15, 4, 12, 0.9648), (20, 6, 15, 0.9586)],
)
def test_the_median_has_the_interval_of_the_sign_test(n: int, low: int, high: int, level: float) -> None:
    values = [float(value) for value in range(1, n + 1)]
    random.Random(1).shuffle(values)
    found = median_estimate(values)
    assert (found.value, found.low, found.high, found.n) == ((n + 1) / 2, low, high, n)
    assert found.level == pytest.approx(level, abs=5e-5)
    assert found.is_interval


@pytest.mark.parametrize(("n", "level"), [(1, 0.0), (2, 0.5), (3, 0.75), (5, 0.9375)])
def test_few_values_give_their_range_and_say_what_it_covers(n: int, level: float) -> None:
    assert n < FEWEST
    found = median_estimate([5.0, 1.0, 4.0, 2.0, 3.0][:n])
    assert (found.low, found.high) == (min([5.0, 1.0, 4.0, 2.0, 3.0][:n]), 5.0)
    assert found.level == pytest.approx(level)
    assert not found.is_interval


def test_the_intervals_of_a_median_cover_it_as_often_as_they_say() -> None:
    chance = random.Random(3)
    true_median = 0.6931471805599453  # of the exponential distribution, which is far from symmetric
    hits = 0
    for _ in range(2000):
        found = median_estimate([chance.expovariate(1) for _ in range(10)])
        hits += found.low <= true_median <= found.high
    assert hits / 2000 == pytest.approx(0.9785, abs=0.01)


def test_a_median_without_values_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a value"):
        median_estimate([])


def test_the_ratio_of_medians_is_always_the_same_and_covers_the_true_one() -> None:
    chance = random.Random(4)
    hits = 0
    for _ in range(40):
        slow = [chance.gauss(10, 1) for _ in range(20)]
        fast = [chance.gauss(2, 0.2) for _ in range(20)]
        found = median_ratio(slow, fast)
        assert found.value == median(slow) / median(fast)
        assert found == median_ratio(slow, fast)
        assert found.is_interval
        hits += found.low <= 5 <= found.high
    assert hits >= 34


def test_the_ratio_of_few_values_is_no_interval() -> None:
    found = median_ratio([10, 12, 14], [1, 2, 4])
    assert (found.value, found.low, found.high) == (6, 2.5, 14)
    assert not found.is_interval


def test_the_slope_of_anscombe() -> None:
    found = slope(ANSCOMBE_X, ANSCOMBE_Y)
    assert found.value == pytest.approx(0.5001, abs=1e-4)
    assert found.low == pytest.approx(0.5001 - 2.2622 * 0.1179, abs=2e-4)
    assert found.high == pytest.approx(0.5001 + 2.2622 * 0.1179, abs=2e-4)


def test_the_slope_of_two_points_has_no_interval_and_of_one_none() -> None:
    found = slope([0, 2], [1, 5])
    assert (found.value, found.low, found.high) == (2, None, None)
    for x in ([], [1], [3, 3]):
        with pytest.raises(ValueError, match="two different x"):
            slope(x, list(x))


def test_points_on_a_line_leave_no_doubt() -> None:
    found = slope([0, 1, 2, 3], [7, 9, 11, 13])
    assert (found.value, found.low, found.high) == (2, 2, 2)
