"""Variance components and repetitions after Kalibera and Jones."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from testbed.statistics import LevelCost, find_components, plan_repetitions


def test_components_are_those_of_an_analysis_of_variance() -> None:
    """Two groups of two: the mean squares are 2.5 (variance of means times 2 is 6.25) and 1.25."""
    found = find_components([[1.0, 2.0], [3.0, 5.0]])
    assert found.components == pytest.approx((3.125 - 1.25 / 2, 1.25))
    assert (found.mean, found.counts) == (2.75, (2, 2))


def test_components_are_found_without_bias() -> None:
    chance = random.Random(1)
    sums: list[tuple[float, ...]] = []
    for _ in range(400):
        builds = [chance.gauss(0, 3) for _ in range(3)]
        instances = [[build + chance.gauss(0, 2) for _ in range(3)] for build in builds]
        measured = [[[one + chance.gauss(0, 1) for _ in range(4)] for one in of] for of in instances]
        sums.append(find_components(measured).components)
    means = [fmean(one[level] for one in sums) for level in range(3)]
    assert means == pytest.approx([9, 4, 1], rel=0.15)


def test_what_varies_and_costs_little_is_repeated() -> None:
    costs = (LevelCost("build", 100.0), LevelCost("instance", 1.0), LevelCost("request", 0.01))
    build, instance, request = plan_repetitions((1.0, 1.0, 4.0), costs)
    assert build.count is None
    assert instance.count == 10, "ceil(sqrt(100 / 1 * 1 / 1))"
    assert request.count == 20, "ceil(sqrt(1 / 0.01 * 4 / 1))"


def test_a_level_that_adds_nothing_is_done_once_and_one_below_it_instead() -> None:
    costs = (LevelCost("build", 100.0), LevelCost("instance", 1.0), LevelCost("request", 0.01))
    _, instance, request = plan_repetitions((1.0, -0.1, 4.0), costs)
    assert instance.count == 1
    assert request.count == 10_000
    assert plan_repetitions((1.0, 1.0, 0.0), costs)[2].count == 1


@pytest.mark.parametrize("measured", [[], [1.0], [[1.0, 2.0]], [[1.0], [2.0]]])
def test_a_level_without_repetition_is_refused(measured: list[object]) -> None:
    with pytest.raises(ValueError, match="at least two repetitions"):
        find_components(measured)


def test_an_experiment_that_is_not_balanced_is_refused() -> None:
    with pytest.raises(ValueError, match="not balanced"):
        find_components([[1.0, 2.0], [1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match="not of the same levels"):
        plan_repetitions((1.0,), ())
