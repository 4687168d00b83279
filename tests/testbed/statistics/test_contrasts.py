"""The ratio and the difference of two medians. How often their intervals hold: tests/benchmarks/test_coverage.py."""

from __future__ import annotations

import random
from statistics import median

import pytest

from testbed.statistics import estimate_median_difference, estimate_median_ratio


def test_the_ratio_of_medians_is_always_the_same_and_covers_the_true_one() -> None:
    chance = random.Random(4)
    hits = 0
    for _ in range(40):
        slow = [chance.gauss(10, 1) for _ in range(20)]
        fast = [chance.gauss(2, 0.2) for _ in range(20)]
        ratio = estimate_median_ratio(slow, fast)
        assert ratio.value == median(slow) / median(fast)
        assert ratio == estimate_median_ratio(slow, fast)
        assert ratio.is_interval
        hits += ratio.low <= 5 <= ratio.high
    assert hits >= 34


def test_the_ratio_of_few_values_is_no_interval() -> None:
    ratio = estimate_median_ratio([10, 12, 14], [1, 2, 4])
    assert (ratio.value, ratio.low, ratio.high) == (6, 2.5, 14)
    assert not ratio.is_interval


def test_the_range_of_few_differences_is_no_interval() -> None:
    difference = estimate_median_difference([10, 12, 14], [1, 2, 4])
    assert (difference.value, difference.low, difference.high, difference.level) == (10, 6, 13, 0)


def test_a_ratio_is_the_difference_of_logarithms() -> None:
    import math

    chance = random.Random(8)
    one, other = ([chance.lognormvariate(0, 1) for _ in range(15)] for _ in range(2))
    ratio = estimate_median_ratio(one, other)
    logs = estimate_median_difference([math.log(value) for value in one], [math.log(value) for value in other])
    # Not the same to the last digit: values between two order statistics are interpolated before the logarithm.
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx(
        (math.exp(logs.value), math.exp(logs.low), math.exp(logs.high)), rel=0.05
    )


def test_one_side_that_never_varies_leaves_the_interval_of_the_other() -> None:
    chance = random.Random(9)
    varying = [chance.gauss(10, 1) for _ in range(25)]
    difference = estimate_median_difference(varying, [3.0] * 25)
    assert difference.low < median(varying) - 3 < difference.high
    assert estimate_median_difference(varying, [0.0] * 25).low == pytest.approx(difference.low + 3)
    assert estimate_median_ratio([3.0] * 8, [2.0] * 8) == estimate_median_ratio([3.0] * 8, [2.0] * 8)
    assert (estimate_median_ratio([3.0] * 8, [2.0] * 8).low, estimate_median_ratio([3.0] * 8, [2.0] * 8).high) == (
        1.5,
        1.5,
    )


def test_values_at_the_end_of_what_floats_hold() -> None:
    assert estimate_median_ratio([1e308] * 8, [1e308] * 8).value == 1
    assert estimate_median_difference([1e308] * 8, [-1e308] * 8).value == float("inf")
    tiny = estimate_median_ratio([1e-300, 1e300] * 6, [1e-300, 1e300] * 6)
    assert tiny.low == 0 and tiny.high >= tiny.value


@pytest.mark.parametrize(("above", "under"), [([], [1.0]), ([1.0], []), ([1.0, 0.0], [1.0]), ([1.0], [-1.0])])
def test_a_ratio_needs_positive_values(above: list[float], under: list[float]) -> None:
    with pytest.raises(ValueError, match="positive values on both sides"):
        estimate_median_ratio(above, under)


@pytest.mark.parametrize(("above", "under"), [([], [1.0]), ([1.0], [])])
def test_a_difference_needs_values(above: list[float], under: list[float]) -> None:
    with pytest.raises(ValueError, match="values on both sides"):
        estimate_median_difference(above, under)
