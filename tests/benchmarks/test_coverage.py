"""Every method of testbed.statistics is right as often as it says; benchmarks/coverage.py has the whole table."""

from __future__ import annotations

import pytest

from benchmarks import coverage

pytestmark = pytest.mark.no_cover
TIMES = 200
# Three standard errors of a coverage of 95 % in so many simulations are 4.6 %.
LEAST, MOST = 90.0, 9.6

HELD = {
    "median, order statistics": ("lognormal", "skewed", "bimodal"),
    "median, of a series": ("lognormal", "skewed", "bimodal"),
    "ratio of medians": ("lognormal", "skewed", "bimodal", "unequal", "shared", "blocks"),
    "difference of medians": ("lognormal", "skewed", "bimodal", "unequal", "shared", "blocks"),
    "shift, Hodges-Lehmann": ("lognormal", "skewed", "bimodal", "shared", "blocks"),
    "median of paired ratios": ("lognormal", "skewed", "bimodal", "unequal", "shared", "blocks"),
    "ratio that a run reports": ("lognormal", "bimodal", "unequal", "shared", "blocks"),
    "mean, Student's t": ("normal",),
}
# Of correlated trials an interval holds from as many on, by what they have in common.
FROM = {"correlated": 10, "correlated 0.8": 50}
CORRELATED = (
    "median, of a series", "ratio of medians", "difference of medians", "shift, Hodges-Lehmann",
    "median of paired ratios", "ratio that a run reports",
)  # fmt: skip


def cover(method: str, shape: str, n: int, times: int = TIMES) -> float:
    return coverage.simulate(method, shape, n, times, seed=2).percentage


@pytest.mark.parametrize("method", HELD)
def test_an_interval_covers_what_it_says(method: str) -> None:
    for shape in HELD[method]:
        for n in (6, 10, 20):
            assert cover(method, shape, n) >= LEAST, (shape, n)


@pytest.mark.parametrize("method", CORRELATED)
def test_it_does_so_where_trials_wander(method: str) -> None:
    for shape, least in FROM.items():
        for n in (10, 20, 50):
            if n >= least:
                assert cover(method, shape, n) >= LEAST, (shape, n)


def test_a_mean_does_so_where_normal_values_wander() -> None:
    for shape, n in (("normal, correlated", 12), ("normal, correlated", 50), ("normal, 0.8", 20), ("normal, 0.8", 50)):
        assert cover("mean, Student's t", shape, n) >= LEAST, (shape, n)


def test_what_takes_trials_as_independent_does_not() -> None:
    assert cover("median, order statistics", "correlated", 50) < LEAST


@pytest.mark.parametrize("method", coverage.WIDTHS)
def test_independent_trials_pay_little_for_it(method: str) -> None:
    assert coverage.measure_widths(method, 6, 20, 1) == (1, 1)
    typical, wide = coverage.measure_widths(method, 50, 150, 1)
    assert 1 <= typical < 1.35 and wide < 3


@pytest.mark.parametrize("n", [6, 20])
def test_nothing_is_claimed_where_there_is_nothing(n: int) -> None:
    for shape in ("lognormal", "bimodal", "unequal", "shared"):
        assert cover("more or less, of equal medians", shape, n) <= MOST, shape
        assert cover("equivalent, at the margin", shape, n) <= MOST, shape
    for claim in ("warm-up", "drift", "autocorrelation"):
        assert cover(claim, "lognormal", n) <= MOST, claim


def test_a_family_errs_as_often_as_one() -> None:
    assert coverage.simulate_family(200, 3, 10) <= MOST


def test_a_mean_of_few_skewed_values_is_refused() -> None:
    assert coverage.simulate("mean, BCa", "lognormal", 20, 5, 1).refused == 5


def test_short_cells_are_marked() -> None:
    cell = coverage.Cell("mean, BCa", "lognormal", 50, 930, 1000, 1000)
    assert coverage.is_short(cell) and coverage._show(cell) == "93.0! (50)"
    assert not coverage.is_short(coverage.Cell("drift", "lognormal", 50, 50, 1000, 0))
    assert coverage._show(coverage.Cell("mean, BCa", "lognormal", 6, 0, 0, 1000)) == "refused"
