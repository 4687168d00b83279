"""What neighbours have in common, and intervals that allow for it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from statistics import fmean, median, pstdev

import pytest

from testbed.statistics import FEWEST_TO_SHOW, autocorrelation, estimate_median, estimate_median_of_series
from testbed.statistics.correlation import find_inflation, find_limits, rank


def _wander(n: int, seed: int, correlation: float = 0.7) -> list[float]:
    chance = random.Random(seed)
    values = [chance.gauss(0, 1)]
    while len(values) < n:
        values.append(correlation * values[-1] + chance.gauss(0, math.sqrt(1 - correlation**2)))
    return values


def _independent(n: int, seed: int) -> list[float]:
    return _wander(n, seed, 0.0)


@pytest.mark.parametrize("n", [6, 10, 30])
def test_the_bounds_are_those_of_independent_trials(n: int) -> None:
    chance = random.Random(n)
    found = [autocorrelation([chance.random() for _ in range(n)]) for _ in range(4000)]
    assert fmean(one.lag_1 for one in found) == pytest.approx(-1 / n, abs=0.02)
    assert pstdev(one.lag_1 for one in found) == pytest.approx((found[0].bound + 1 / n) / 1.645, abs=0.01)
    assert fmean(one.found for one in found) == pytest.approx(0.05, abs=0.012)
    assert fmean(one.p_value <= 0.05 for one in found) == pytest.approx(0.05, abs=0.012)


def test_a_wandering_series_is_found_and_an_alternating_one_is_not() -> None:
    assert autocorrelation(_wander(40, 1)).found
    assert autocorrelation([float(at % 2) for at in range(40)]).lag_1 < -0.9
    assert not autocorrelation([float(at % 2) for at in range(40)]).found


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0, 3.0], [2.0] * 50])
def test_few_or_equal_values_have_nothing_in_common(values: list[float]) -> None:
    related = autocorrelation(values)
    assert (related.lag_1, related.found, related.p_value) == (0, False, 1)
    assert find_inflation(values) == 1


def test_an_interval_is_wider_where_trials_wander_and_says_so() -> None:
    values = _wander(50, 2)
    plain, allowed = estimate_median(values), estimate_median_of_series(values)
    assert allowed.value == plain.value and allowed.level == plain.level
    assert allowed.low < plain.low and plain.high < allowed.high
    assert allowed.is_widened and allowed.related
    assert allowed.effective is not None and allowed.effective < 20
    assert allowed.effective == pytest.approx(50 / find_inflation(values))
    limits = find_limits(values, 0.95)
    assert allowed.low <= limits.low <= plain.low + 1e-9 and limits.is_widened


def test_an_alternating_series_counts_in_full() -> None:
    values = [at % 2 + at / 1000 for at in range(30)]
    assert find_inflation(values) == 1
    estimate = estimate_median_of_series(values)
    assert (estimate.low, estimate.high) == (estimate_median(values).low, estimate_median(values).high)
    assert (estimate.effective, estimate.is_widened) == (30, False)


def test_few_trials_are_taken_as_independent_and_say_so() -> None:
    rising = [float(at) for at in range(FEWEST_TO_SHOW - 1)]
    estimate, plain = estimate_median_of_series(rising), estimate_median(rising)
    assert (estimate.low, estimate.high) == (plain.low, plain.high)
    assert estimate.effective is None and estimate.related and not estimate.is_widened
    assert estimate_median_of_series([1.0, 2.0]) == estimate_median([1.0, 2.0])


def test_no_interval_goes_beyond_the_range() -> None:
    rising = [float(at) for at in range(12)]
    estimate = estimate_median_of_series(rising)
    assert (estimate.low, estimate.high, estimate.effective) == (0, 11, 3)


def test_what_lasts_below_noise_is_seen_in_batches() -> None:
    """A state of the host with half of the variance: neighbours resemble each other less than the state does."""
    chance = random.Random(5)
    values = [0.7 * state + chance.gauss(0, 0.7) for state in _wander(200, 6, 0.95)]
    of_lag_1 = 2 * math.sin(math.pi / 6 * autocorrelation(values).lag_1)
    assert find_inflation(values) > 2 * (1 + of_lag_1) / (1 - of_lag_1)


def _cover(draw: Callable[[int, int], list[float]], n: int, times: int = 1500) -> float:
    estimates = [estimate_median_of_series(draw(n, seed)) for seed in range(times)]
    return fmean(one.low <= 0 <= one.high for one in estimates)


@pytest.mark.parametrize(("n", "correlation"), [(10, 0.5), (20, 0.5), (50, 0.5), (30, 0.8), (50, 0.8)])
def test_the_median_of_a_series_that_wanders_is_covered(n: int, correlation: float) -> None:
    """From ten trials on where each has half its deviation from the one before, from 30 on where it has 0.8 of it. The
    chance of the simulation is 0.6 %."""
    assert _cover(lambda n, seed: _wander(n, seed, correlation), n) > 0.94 - 0.012


@pytest.mark.parametrize(("n", "most"), [(10, 1.35), (20, 1.35), (50, 1.15)])
def test_independent_trials_pay_little_for_it(n: int, most: float) -> None:
    widths = []
    for seed in range(600):
        values = _independent(n, seed)
        allowed, plain = estimate_median_of_series(values), estimate_median(values)
        widths.append((allowed.high - allowed.low) / (plain.high - plain.low))
    assert min(widths) == 1
    assert median(widths) < most


def test_equal_values_share_their_rank() -> None:
    assert rank([3.0, 1.0, 3.0, 2.0]) == [3.5, 1, 3.5, 2]
