"""Verdicts. How often they are wrong: tests/benchmarks/test_coverage.py."""

from __future__ import annotations

import random

import pytest

from testbed.statistics import (
    MARGIN,
    adjust_holm,
    compare_medians,
    compare_pairs,
    judge_equivalence,
    judge_family,
)


def _sample(n: int, scale: float = 1.0, seed: int = 1, spread: float = 0.02) -> list[float]:
    chance = random.Random(seed)
    return [scale * chance.lognormvariate(0, spread) for _ in range(n)]


@pytest.mark.parametrize("n", [6, 10, 50, 2000])
def test_more_less_and_equivalent(n: int) -> None:
    base = _sample(n)
    assert compare_medians(base, _sample(n, 1.3, 2)).verdict == "more"
    assert compare_medians(base, _sample(n, 0.7, 2)).verdict == "less"
    assert compare_medians(base, _sample(n, 1.0, 2)).verdict == "equivalent"


def test_what_varies_too_much_is_not_told_and_says_what_would_have_been() -> None:
    compared = compare_medians(_sample(8, spread=0.5), _sample(8, seed=2, spread=0.5))
    assert (compared.verdict, compared.why) == ("cannot tell", "the trials vary too much")
    assert compared.smallest is not None and compared.smallest > 0.5


def test_the_smallest_difference_is_seen_about_four_times_in_five() -> None:
    seen = 0
    for seed in range(200):
        base, other = _sample(20, 1, 1000 + seed, 0.2), _sample(20, 1, 3000 + seed, 0.2)
        smallest = compare_medians(base, other).smallest
        assert smallest is not None
        moved = compare_medians(_sample(20, 1, 5000 + seed, 0.2), _sample(20, 1 + smallest, 7000 + seed, 0.2))
        seen += moved.verdict == "more"
    assert seen / 200 == pytest.approx(0.85, abs=0.1)


def test_a_difference_within_the_margin_does_not_matter_however_sure_it_is() -> None:
    compared = compare_medians(_sample(400), _sample(400, 1.02, 2))
    assert compared.p_value < 1e-6
    assert compared.verdict == "equivalent"
    assert compare_medians(_sample(400), _sample(400, 1.02, 2), margin=0.001).verdict == "more"


def test_few_trials_claim_nothing() -> None:
    compared = compare_medians([1.0, 1.1, 1.2], [9.0, 9.1, 9.2])
    assert (compared.verdict, compared.why, compared.smallest) == ("cannot tell", "fewer than 6 trials", None)
    assert compare_medians([1.0], [2.0]).verdict == "cannot tell"
    assert compare_pairs([1.0], [2.0]).verdict == "cannot tell"


def test_samples_that_never_vary_have_a_verdict() -> None:
    assert compare_medians([0.5] * 6, [0.5] * 6).verdict == "equivalent"
    assert compare_medians([0.5] * 6, [0.51] * 6, margin=0.0).verdict == "more"
    assert compare_medians([0.5] * 6, [0.4] * 6).verdict == "less"
    assert compare_medians([12.0] * 6, [5.0] * 6).smallest == 0


def test_values_that_have_no_ratio_are_compared_by_their_difference() -> None:
    compared = compare_medians([-1.0, 0.0, 1.0, 0.5, -0.5, 0.1] * 3, [9.0, 10.0, 11.0, 10.5, 9.5, 10.1] * 3)
    assert compared.ratio is None and compared.equivalence is None and compared.smallest is None
    assert compared.verdict == "more"
    assert compare_medians([0.0] * 8, [0.0] * 8).verdict == "cannot tell"


def test_huge_values_are_compared() -> None:
    assert compare_medians([1e308] * 6, [1e-300] * 6).verdict == "less"
    assert compare_medians([1e-300] * 6, [1e308] * 6).verdict in ("more", "cannot tell")
    assert compare_pairs([1e-300] * 6, [1e308] * 6).ratio is not None
    assert compare_medians([1e-300, 1e300] * 6, [1e-300, 1e300] * 6).verdict == "cannot tell"


def test_pairs_see_what_the_host_hides() -> None:
    chance = random.Random(7)
    states = [chance.lognormvariate(0, 0.5) for _ in range(12)]
    base = [state * chance.lognormvariate(0, 0.01) for state in states]
    other = [1.1 * state * chance.lognormvariate(0, 0.01) for state in states]
    assert compare_medians(base, other).verdict == "cannot tell"
    paired = compare_pairs(base, other)
    assert (paired.verdict, paired.paired) == ("more", True)
    assert paired.ratio is not None and paired.ratio.low < 1.1 < paired.ratio.high
    assert compare_pairs(base, [value * 1.01 for value in base]).verdict == "equivalent"
    with pytest.raises(ValueError, match="as many values"):
        compare_pairs(base, other[:-1])


def test_equivalence_is_two_tests_and_an_interval() -> None:
    close = judge_equivalence(_sample(30), _sample(30, 1.01, 2))
    assert close.p_value < 0.05 and close.within and close.margin == MARGIN
    beyond = judge_equivalence(_sample(30), _sample(30, 1.06, 2))
    assert beyond.p_value > 0.05 and not beyond.within
    assert not judge_equivalence(_sample(30), _sample(30, 1.01, 2), margin=0.001).within


def test_holm_multiplies_by_how_many_are_left_and_keeps_the_order() -> None:
    """0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 no smaller than the one before it."""
    assert adjust_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert adjust_holm([]) == ()
    assert adjust_holm([0.9, 0.8]) == (1.0, 1.0)


def test_a_family_claims_less_than_each_by_itself() -> None:
    clear = [compare_medians(_sample(6, 1, seed), _sample(6, 2, seed + 50)) for seed in range(40)]
    assert all(one.verdict == "more" for one in clear)
    assert all(one.verdict == "more" for one in judge_family(clear[:20]))
    adjusted = judge_family(clear)  # six against six values reject with no less than 2 / 924
    assert {one.verdict for one in adjusted} == {"cannot tell"}
    assert (adjusted[0].smallest, adjusted[0].why) == (None, "not sure enough for 40 comparisons at once")
    assert adjusted[0].family == 40 and adjusted[0].p_value == pytest.approx(80 / 924)
    assert judge_family([]) == ()


def test_among_many_a_difference_must_be_larger_to_be_seen() -> None:
    one = compare_medians(_sample(20), _sample(20, seed=2))
    many = judge_family([one] * 10)[0]
    assert one.smallest is not None and many.smallest is not None
    assert 1.2 * one.smallest < many.smallest < 1.6 * one.smallest
    assert judge_family([one])[0] == one
    assert judge_family(judge_family([one] * 10))[0].smallest == pytest.approx(many.smallest)


def test_a_comparison_needs_values() -> None:
    with pytest.raises(ValueError, match="both sides"):
        compare_medians([], [1.0])
