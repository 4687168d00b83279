"""Warm-up and drift."""

from __future__ import annotations

import random

import pytest

from testbed.statistics import find_warmup, judge_drift


def _steady(n: int, seed: int = 1) -> list[float]:
    chance = random.Random(seed)
    return [chance.lognormvariate(0, 0.05) for _ in range(n)]


@pytest.mark.parametrize("first", [[2.0], [0.4], [3.0, 2.0, 1.7, 1.5], [1.6] * 10])
def test_warmup_is_the_beginning_that_differs(first: list[float]) -> None:
    found = find_warmup(first + _steady(40))
    assert len(first) <= found <= len(first) + 1


def test_one_first_trial_of_seven_is_enough_where_the_others_are_alike() -> None:
    assert find_warmup([5.0, 1.0, 1.1, 1.0, 0.9, 1.0, 1.1]) == 1
    assert find_warmup([5.0] + [1.0] * 9) == 1, "as in the reference machine"


def test_a_drift_is_no_warmup() -> None:
    assert find_warmup([1 + at / 20 for at in range(24)]) == 0
    assert find_warmup([value * (2 - at / 60) for at, value in enumerate(_steady(60))]) == 0


def test_what_is_steady_has_no_warmup() -> None:
    assert find_warmup([1.0] * 12) == 0
    assert find_warmup([9.0, 1.0, 1.0, 1.0, 1.0]) == 0, "too few trials to tell"
    assert find_warmup([]) == 0
    assert find_warmup([*_steady(20), 9.0]) == 0, "a change at the end is none"


@pytest.mark.parametrize("n", [6, 12, 30])
def test_drift_is_judged_as_by_kendall(n: int) -> None:
    from scipy.stats import kendalltau, theilslopes

    chance = random.Random(n)
    values = [chance.gauss(0.05 * at, 1) for at in range(n)]
    drift = judge_drift(values)
    assert drift.p_value == pytest.approx(kendalltau(range(n), values, method="exact").pvalue)
    assert drift.change == pytest.approx(theilslopes(values).slope * (n - 1))


def test_a_drift_of_many_trials_is_found_in_their_parts() -> None:
    values = [value * (1 + at / 50_000) for at, value in enumerate(_steady(5000))]
    drift = judge_drift(values)
    assert drift.found and drift.n == 5000
    assert drift.relative == pytest.approx(0.095, abs=0.02)


def test_a_series_of_equal_or_few_values_does_not_drift() -> None:
    for values in ([1.0] * 10, [1.0] * 100, [3.0], []):
        drift = judge_drift(values)
        assert (drift.change, drift.p_value, drift.found) == (0, 1, False)
    assert judge_drift([-1.0, 0.0, 1.0]).relative == 0, "of a median of 0 there is no fraction"
