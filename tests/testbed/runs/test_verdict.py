"""What a gate says: a regression, none, or that it cannot tell."""

from __future__ import annotations

import math
import random

import pytest

from testbed.runs.verdict import (
    Change,
    estimate_change,
    estimate_own_noise,
    find_p_of_harm,
    judge,
    judge_exactly,
)


def noisy(center: float, n: int = 12, spread: float = 0.01, seed: int = 1) -> list[float]:
    chance = random.Random(seed)
    return [center * chance.lognormvariate(0, spread) for _ in range(n)]


def test_of_two_runs_the_interval_is_that_of_the_ratio_of_medians() -> None:
    change = estimate_change([noisy(1.0)], [noisy(1.2, seed=2)])
    assert change is not None and change.low is not None and change.high is not None
    assert 0.15 < change.low < change.value < change.high < 0.25
    assert not change.covers_runs


def test_with_several_runs_the_run_is_the_unit() -> None:
    """A hundred trials a run say nothing of what varies between two runs: pooled, they would exclude no change."""
    before = [noisy(1.0, 100, seed=1), noisy(1.1, 100, seed=2)]
    after = [noisy(1.15, 100, seed=3), noisy(1.05, 100, seed=4)]
    change = estimate_change(before, after)
    assert change is not None and change.covers_runs and change.low is not None and change.high is not None
    assert change.low < -0.1 and change.high > 0.2


def test_one_run_against_several_is_a_prediction() -> None:
    """By hand: of logarithms ln 1.0, ln 1.1, ln 1.2 and a new ln 1.5, t(2) = 4.303, s = 0.09125, root of 1 + 1/3."""
    change = estimate_change([[1.0], [1.1], [1.2]], [[1.5]])
    mean = (math.log(1.1) + math.log(1.2)) / 3
    spread = math.sqrt(sum((math.log(x) - mean) ** 2 for x in (1.0, 1.1, 1.2)) / 2)
    half = 4.302653 * spread * math.sqrt(4 / 3)
    assert change is not None and change.low is not None and change.high is not None
    assert change.low == pytest.approx(math.exp(math.log(1.5) - mean - half) - 1, rel=1e-5)
    assert change.high == pytest.approx(math.exp(math.log(1.5) - mean + half) - 1, rel=1e-5)


@pytest.mark.parametrize(
    ("before", "after", "value", "has_interval"),
    [
        ([1.0], [2.0], 1.0, False),
        ([2.0] * 8, [2.0] * 8, 0.0, True),
        ([4.0] * 8, [0.0] * 8, -1.0, False),
        ([0.0] * 8, [0.0] * 8, 0.0, True),
        ([1e-18] * 6, [1e18] * 6, 1e36, True),
    ],
)
def test_odd_samples_have_a_change(before: list[float], after: list[float], value: float, has_interval: bool) -> None:
    change = estimate_change([before], [after])
    assert change is not None
    assert change.value == pytest.approx(value)
    assert (change.low is not None) == has_interval


@pytest.mark.parametrize(
    ("before", "after"), [([0.0] * 6, [1.0] * 6), ([-1.0] * 6, [1.0] * 6), ([1.0] * 6, [-1.0] * 6)]
)
def test_what_has_no_ratio_has_no_change(before: list[float], after: list[float]) -> None:
    assert estimate_change([before], [after]) is None
    assert judge(None, "lower", 0.05, None, 1.0).result == "cannot tell"


def test_values_of_any_size_give_numbers() -> None:
    for sides in ([[[1e-18], [1e18]], [[1e18], [1e-18]]], [[[1.0], [1.0]], [[1e18]]], [[[1e18], [1e-18]], [[0.0]]]):
        change = estimate_change(*sides)
        assert change is not None
        assert all(end is None or math.isfinite(end) for end in (change.value, change.low, change.high))


def test_harm_of_what_is_better_higher_is_turned() -> None:
    assert Change(-0.1, -0.2, 0.05).harm("higher") == Change(0.1, -0.05, 0.2)
    assert Change(-0.1, -0.2, 0.05).harm("lower") == Change(-0.1, -0.2, 0.05)


@pytest.mark.parametrize(
    ("low", "value", "high", "limit", "noise", "p_value", "result", "smallest"),
    [
        (0.06, 0.10, 0.14, 0.05, None, 0.001, "regression", 0.09),
        (0.06, 0.10, 0.14, 0.05, None, 0.2, "cannot tell", 0.09),
        (0.06, 0.10, 0.14, 0.05, 0.08, 0.001, "cannot tell", 0.12),
        (0.09, 0.10, 0.11, 0.05, 0.08, 0.001, "regression", 0.09),
        (-0.02, 0.01, 0.04, 0.05, 0.03, 1.0, "ok", 0.08),
        (-0.02, 0.01, 0.04, 0.05, 0.06, 1.0, "cannot tell", 0.09),
        (-0.02, 0.01, 0.07, 0.05, None, 1.0, "cannot tell", 0.08),
        (-0.30, -0.20, -0.10, 0.05, 0.01, 1.0, "ok", 0.15),
    ],
)
def test_the_larger_of_limit_and_noise_decides(
    low: float,
    value: float,
    high: float,
    limit: float,
    noise: float | None,
    p_value: float,
    result: str,
    smallest: float,
) -> None:
    judged = judge(Change(value, low, high), "lower", limit, noise, p_value)
    assert judged.result == result
    assert judged.threshold == max(limit, noise or 0)
    assert judged.smallest == pytest.approx(smallest)


def test_without_an_interval_nothing_can_be_told() -> None:
    judged = judge(Change(9.0), "lower", 0.05, None, 0.0)
    assert (judged.result, judged.smallest) == ("cannot tell", None)
    assert "fewer than 6 trials" in judged.reason


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_p_values_are_small_only_beyond_the_threshold(better: str) -> None:
    sign = 1 if better == "lower" else -1
    worse, same = [noisy(1 + 0.2 * sign, seed=2)], [noisy(1.0, seed=3)]
    for before in ([noisy(1.0)], [noisy(1.0, seed=4), noisy(1.0, seed=5), noisy(1.0, seed=6)]):
        assert find_p_of_harm(before, worse, better, 0.05) < 0.01  # type: ignore[arg-type]
        assert find_p_of_harm(before, worse, better, 0.25) > 0.9  # type: ignore[arg-type]
        assert find_p_of_harm(before, same, better, 0.05) > 0.9  # type: ignore[arg-type]


def test_with_several_runs_the_noise_bounds_a_regression_and_the_interval_what_is_ok() -> None:
    change = Change(0.01, -0.02, 0.04, covers_runs=True)
    assert judge(change, "lower", 0.05, 0.20, 1.0).result == "ok"
    assert judge(Change(0.15, 0.10, 0.20, covers_runs=True), "lower", 0.05, 0.20, 0.0).result == "cannot tell"


def test_a_run_whose_parts_differ_is_as_noisy_as_they_do() -> None:
    """Each half is quiet; as if independent, the median's interval would be as narrow as one of them."""
    assert estimate_own_noise([[*noisy(1.0, 12, 0.001), *noisy(1.5, 13, 0.001)]]) == pytest.approx(0.33, abs=0.02)


def test_noise_is_the_width_of_a_typical_run() -> None:
    narrow, wide = noisy(1.0, spread=0.001), noisy(1.0, spread=0.05)
    assert estimate_own_noise([narrow]) == pytest.approx(0.002, abs=0.002)
    assert estimate_own_noise([narrow, wide, wide]) == estimate_own_noise([wide])
    assert estimate_own_noise([[1.0, 1.1]]) is None


@pytest.mark.parametrize(
    ("before", "after", "limit", "result", "reason"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0, "ok", "identical"),
        ([1.0], [1.000000001], 0.0, "regression", "worse"),
        ([1.0], [0.999999999], 0.0, "ok", "better"),
        ([1.0, 2.0, 3.0], [1.1, 2.0, 3.0], 0.0, "regression", "the median is the same"),
        ([1.0], [1.005], 0.01, "ok", "within the limit"),
        ([0.0], [1.0], 0.01, "regression", "worse"),
    ],
)
def test_in_instruction_time_any_difference_is_one(
    before: list[float], after: list[float], limit: float, result: str, reason: str
) -> None:
    judged = judge_exactly([before], [after], "lower", limit)
    assert judged.result == result and reason in judged.reason
