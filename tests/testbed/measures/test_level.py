"""What counts of requests say of a service level, and what they leave open."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from testbed.histograms import build_histogram
from testbed.measures.level import (
    MOST_WINDOWS,
    SIDE_ERROR,
    Window,
    bound_fraction,
    compute_beta,
    count_slower,
    count_windows,
    judge,
    wants_another,
)
from testbed.scenario.model import Slo

SLO = Slo(p99_ms=250, error_fraction=0.01)


def window(of: int, slow: int = 0, failed: int = 0) -> Window:
    return Window(of, slow, of, failed)


@pytest.mark.parametrize(
    ("bad", "of"),
    [(0, 10), (1, 10), (9, 10), (10, 10), (3, 1000), (18, 1000), (4999, 5000), (5, 100_000), (50_000, 10**6)],
)
def test_the_bound_is_that_of_clopper_and_pearson(bad: int, of: int) -> None:
    from scipy.stats import beta

    low, high = bound_fraction(bad, of)
    assert low == pytest.approx(beta.ppf(SIDE_ERROR, bad, of - bad + 1) if bad else 0, rel=1e-8)
    assert high == pytest.approx(beta.ppf(1 - SIDE_ERROR, bad + 1, of - bad) if bad < of else 1, rel=1e-8)


def test_the_beta_function_is_scipys() -> None:
    from scipy.special import betainc

    chance = random.Random(17)
    for _ in range(300):
        a, b, x = chance.uniform(0.5, 5000), chance.uniform(0.5, 5000), chance.uniform(1e-4, 1 - 1e-4)
        assert compute_beta(x, a, b) == pytest.approx(betainc(a, b, x), rel=1e-7, abs=1e-12)


def test_of_nothing_nothing_is_known() -> None:
    assert bound_fraction(0, 0) == (0, 1)
    with pytest.raises(ValueError, match="3 of 2"):
        bound_fraction(3, 2)
    assert judge([window(0)], SLO).verdict == "undecided"
    assert not wants_another([window(0)], SLO)


def test_the_bound_covers_what_it_says() -> None:
    """Of 2,000 intervals of 95 % for a fraction of 1 %, at most 2.5 % miss it on each side, and a bit of chance."""
    chance = random.Random(3)
    bounds = {bad: bound_fraction(bad, 500, 0.025) for bad in range(40)}
    drawn = [sum(chance.random() < 0.01 for _ in range(500)) for _ in range(2000)]
    missed_low = sum(bounds[bad][0] > 0.01 for bad in drawn) / len(drawn)
    missed_high = sum(bounds[bad][1] < 0.01 for bad in drawn) / len(drawn)
    assert 0 < missed_low < 0.03 and 0 < missed_high < 0.03


def test_a_level_holds_when_enough_requests_say_so() -> None:
    assert judge([window(500)], SLO).verdict == "undecided", "the upper end is 1.01 %"
    held = judge([window(600)], SLO)
    assert (held.verdict, held.slow_low) == ("held", 0)
    assert 0.008 < held.slow_high < 0.0085
    assert judge([window(300), window(300)], SLO).verdict == "held", "windows add up"
    assert judge([window(1000, slow=9)], SLO).verdict == "undecided", "as close to 1 % as that"


def test_one_window_breaks_nothing_and_two_do() -> None:
    first = window(1000, slow=100)
    assert judge([first], SLO).verdict == "undecided" and wants_another([first], SLO)
    again = judge([first, window(1000, slow=80)], SLO)
    assert again.verdict == "broke"
    assert again.reason.startswith("180 of 2000 requests in 2 windows slower than 250 ms (7")
    assert again.reason.endswith("%), more than 1%")
    assert not wants_another([first, window(1000, slow=80)], SLO)
    assert judge([first, window(1000), window(1000), window(1000)], SLO).verdict == "undecided", "one hiccup of four"


def test_many_windows_break_together_what_none_breaks_alone() -> None:
    each = window(250, slow=7)
    assert bound_fraction(7, 250)[0] < 0.01
    windows = [each]
    while wants_another(windows, SLO):
        windows.append(each)
    assert (judge(windows, SLO).verdict, len(windows) <= MOST_WINDOWS) == ("broke", True)


def ramp_verdicts(chance: random.Random, slow_fraction: float, requests: int, times: int) -> Counter[str]:
    """The verdicts of so many steps whose requests are slow with that probability, independently of each other."""
    found: Counter[str] = Counter()
    for _ in range(times):
        windows: list[Window] = []
        while not windows or wants_another(windows, SLO):
            windows.append(window(requests, slow=sum(chance.random() < slow_fraction for _ in range(requests))))
        found[judge(windows, SLO).verdict] += 1
    return found


def test_verdicts_are_as_sure_as_they_say() -> None:
    """At the limit itself either verdict is wrong; far from it there is one nearly always."""
    chance = random.Random(11)
    at_the_limit = ramp_verdicts(chance, 0.01, 300, 1000)
    assert at_the_limit["broke"] <= 25 and at_the_limit["held"] <= 25 and at_the_limit["undecided"] >= 950
    assert ramp_verdicts(chance, 0.04, 300, 100)["broke"] >= 95
    assert ramp_verdicts(chance, 0.001, 300, 100)["held"] >= 90


def test_failures_break_it_as_slowness_does() -> None:
    windows = [window(1000, failed=60)] * 2
    judged = judge(windows, SLO)
    assert judged.verdict == "broke" and "120 of 2000 requests in 2 windows failed" in judged.reason


def test_a_level_without_failures_holds_after_a_thousand_requests() -> None:
    strict = Slo(p99_ms=250, error_fraction=0)
    assert judge([window(999)], strict).verdict == "undecided"
    assert judge([window(1000)], strict).verdict == "held"
    assert judge([window(1000, failed=1), window(1000)], strict).verdict == "undecided"
    assert judge([window(1000, failed=1)] * 2, strict).verdict == "broke"
    assert judge([window(1000, failed=900)], Slo(p99_ms=250, error_fraction=1)).verdict == "held"


def test_no_time_is_lost_where_nothing_can_be_decided() -> None:
    assert not wants_another([window(10)], SLO), "forty good ones would say nothing"
    assert wants_another([window(10, slow=3)], SLO), "forty like these would"
    assert wants_another([window(150)], SLO)
    assert not wants_another([window(1000, slow=10)] * MOST_WINDOWS, SLO)


def test_the_windows_of_a_good_step_can_be_told_beforehand() -> None:
    assert [count_windows(requests, SLO) for requests in (10, 126, 130, 200, 300, 600)] == [1, 1, 4, 3, 2, 1]


def test_latencies_above_the_limit_are_slow() -> None:
    latencies = build_histogram([1_000] * 5 + [249_000, 250_000, 251_000, 9_000_000])
    assert count_slower(latencies, 250) == 2
    assert count_slower(build_histogram([]), 250) == 0
