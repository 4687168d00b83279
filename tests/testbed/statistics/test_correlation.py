"""What neighbours have in common, and intervals that allow for it."""

from __future__ import annotations

import random
from statistics import fmean, pstdev

import pytest

from testbed.statistics import autocorrelation, estimate_median, estimate_median_of_series
from testbed.statistics.correlation import find_inflation, rank


def _wander(n: int, seed: int) -> list[float]:
    chance = random.Random(seed)
    values = [chance.gauss(0, 1)]
    while len(values) < n:
        values.append(0.7 * values[-1] + chance.gauss(0, 0.7))
    return values


@pytest.mark.parametrize("n", [6, 10, 30])
def test_the_bounds_are_those_of_independent_trials(n: int) -> None:
    chance = random.Random(n)
    found = [autocorrelation([chance.random() for _ in range(n)]) for _ in range(4000)]
    assert fmean(one.lag_1 for one in found) == pytest.approx(-1 / n, abs=0.02)
    assert pstdev(one.lag_1 for one in found) == pytest.approx((found[0].bound + 1 / n) / 1.645, abs=0.01)
    assert fmean(one.found for one in found) == pytest.approx(0.05, abs=0.012)
    assert fmean(one.is_suspected for one in found) == pytest.approx(0.2, abs=0.025)
    assert fmean(one.p_value <= 0.05 for one in found) == pytest.approx(0.05, abs=0.012)


def test_a_wandering_series_is_found_and_an_alternating_one_is_not() -> None:
    assert autocorrelation(_wander(40, 1)).found
    assert autocorrelation([float(at % 2) for at in range(40)]).lag_1 < -0.9
    assert not autocorrelation([float(at % 2) for at in range(40)]).found


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0, 3.0], [2.0] * 50])
def test_few_or_equal_values_have_nothing_in_common(values: list[float]) -> None:
    related = autocorrelation(values)
    assert (related.lag_1, related.found, related.is_suspected) == (0, False, False)


def test_an_interval_is_wider_where_trials_wander() -> None:
    values = _wander(50, 2)
    plain, allowed = estimate_median(values), estimate_median_of_series(values)
    assert allowed.value == plain.value and allowed.is_interval
    assert allowed.low < plain.low and plain.high < allowed.high
    assert find_inflation(values) > 2
    chance = random.Random(3)
    independent = next(
        series for _ in range(20) if not autocorrelation(series := [chance.random() for _ in range(50)]).is_suspected
    )
    assert estimate_median_of_series(independent) == estimate_median(independent)
    assert find_inflation(independent) == 1


def test_few_trials_that_wander_have_their_range() -> None:
    values = _wander(10, 4)
    assert autocorrelation(values).is_suspected
    allowed = estimate_median_of_series(values)
    assert (allowed.low, allowed.high) == (min(values), max(values))
    assert estimate_median_of_series([1.0, 2.0]) == estimate_median([1.0, 2.0])


def test_equal_values_share_their_rank() -> None:
    assert rank([3.0, 1.0, 3.0, 2.0]) == [3.5, 1, 3.5, 2]
