"""Tests and shifts by ranks against scipy's own, and where scipy has none against all arrangements."""

from __future__ import annotations

import random
from itertools import combinations, zip_longest
from statistics import median

import pytest

from testbed.statistics import hodges_lehmann
from testbed.statistics.ranks import compare_order, find_tail, judge_below, judge_signs_below


@pytest.mark.parametrize(("n", "m"), [(3, 4), (6, 6), (7, 12), (30, 25)])
def test_the_test_of_mann_and_whitney_is_exact(n: int, m: int) -> None:
    from scipy.stats import mannwhitneyu

    chance = random.Random(n)
    base, other = [chance.gauss(0, 1) for _ in range(n)], [chance.gauss(0.5, 1) for _ in range(m)]
    assert compare_order(base, other) == pytest.approx(mannwhitneyu(base, other, method="exact").pvalue)
    one_sided = mannwhitneyu(other, base, method="exact", alternative="less").pvalue
    assert judge_below(base, other) == pytest.approx(one_sided)


def test_the_test_of_many_values_is_the_normal_one() -> None:
    from scipy.stats import mannwhitneyu

    chance = random.Random(3)
    base, other = [chance.gauss(0, 1) for _ in range(400)], [chance.gauss(0.1, 1) for _ in range(300)]
    assert compare_order(base, other) == pytest.approx(mannwhitneyu(base, other, method="asymptotic").pvalue, rel=1e-6)


def test_the_tail_is_that_of_all_arrangements() -> None:
    counts = [sum(ranks) - 6 for ranks in combinations(range(1, 8), 3)]
    for u in range(13):
        assert find_tail(u, 3, 4) == pytest.approx(sum(count <= u for count in counts) / len(counts))
    assert find_tail(-1, 3, 4) == 0


def test_equal_values_are_never_evidence() -> None:
    assert compare_order([1.0] * 9, [1.0] * 7) == 1
    assert compare_order([1.0] * 400, [1.0] * 300) == 1
    assert compare_order([1.0] * 6, [2.0] * 6) == pytest.approx(2 / 924)


def _alternate(values: list[float]) -> list[float]:
    """Return values in an order in which neighbours have nothing in common."""
    ordered = sorted(values)
    half = (len(ordered) + 1) // 2
    return [value for pair in zip_longest(ordered[:half], ordered[half:]) for value in pair if value is not None]


def test_a_shift_of_trials_that_wander_has_a_wider_interval() -> None:
    chance = random.Random(3)
    base, other = [chance.gauss(0, 1) for _ in range(12)], [chance.gauss(2, 1) for _ in range(12)]
    apart = hodges_lehmann(_alternate(base), _alternate(other))
    wandering = hodges_lehmann(sorted(base), sorted(other))
    assert wandering.low < apart.low and apart.high < wandering.high
    assert wandering.value == apart.value and wandering.level == apart.level
    assert (apart.effective, apart.related) == (12, False)
    assert wandering.is_widened and wandering.effective == 3
    assert hodges_lehmann(sorted(base[:9]), sorted(other[:9])).effective is None


def test_a_test_that_allows_for_it_rejects_less() -> None:
    base, other = [float(at) for at in range(8)], [float(at) + 4.5 for at in range(8)]
    p_values = [compare_order(base, other, inflation) for inflation in (1.0, 1.5, 3.0)]
    assert p_values == sorted(p_values) and p_values[0] < 0.05 < p_values[2]
    assert judge_below(other, base, 3.0) > judge_below(other, base)


def test_the_shift_is_the_median_of_differences_with_the_interval_of_the_test() -> None:
    chance = random.Random(5)
    base, other = [chance.gauss(0, 1) for _ in range(9)], _alternate([chance.gauss(2, 1) for _ in range(11)])
    shift = hodges_lehmann(base, other)
    assert shift.value == pytest.approx(median(b - a for a in base for b in other))
    assert 0.95 <= shift.level < 0.96
    for edge, away in ((shift.low, -1e-9), (shift.high, 1e-9)):
        outside = compare_order(base, [value - edge - away for value in other])
        inside = compare_order(base, [value - edge + away for value in other])
        assert outside <= 0.05 < inside


def test_the_shift_of_more_values_than_differences_are_held() -> None:
    chance = random.Random(6)
    base, other = [chance.gauss(0, 1) for _ in range(1200)], [chance.gauss(1, 1) for _ in range(1100)]
    differences = sorted(b - a for a in base for b in other)
    shift = hodges_lehmann(base, other)
    assert shift.value == pytest.approx(median(differences), abs=1e-9)
    assert shift.low < 1 < shift.high and shift.high - shift.low < 0.2


@pytest.mark.parametrize(("n", "level"), [(1, 0.0), (2, 2 / 3), (3, 0.9)])
def test_few_values_give_the_range_of_shifts_and_what_it_covers(n: int, level: float) -> None:
    shift = hodges_lehmann([float(value) for value in range(n)], [float(value) for value in range(n)])
    assert shift.level == pytest.approx(level)
    assert not shift.is_interval


def test_signed_ranks_are_those_of_wilcoxon() -> None:
    from scipy.stats import wilcoxon

    chance = random.Random(4)
    for n in (6, 14, 40):
        differences = [chance.gauss(-0.3, 1) for _ in range(n)]
        exact = wilcoxon(differences, alternative="less", method="exact").pvalue
        assert judge_signs_below(differences) == pytest.approx(exact)
    many = [chance.gauss(-0.05, 1) for _ in range(300)]
    assert judge_signs_below(many) == pytest.approx(
        wilcoxon(many, alternative="less", correction=True).pvalue, rel=1e-3
    )


def test_shifts_at_the_end_of_what_floats_hold() -> None:
    assert hodges_lehmann([-1e308] * 6, [1e308] * 6).value == float("inf")
    assert hodges_lehmann([0.5] * 6, [0.5] * 6).high == 0
    with pytest.raises(ValueError, match="both sides"):
        hodges_lehmann([], [1.0])
