"""How many blocks a run measures, decided from numbers."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections.abc import Sequence

import pytest

from runtime.errors import UsageError
from testbed.measures.design import (
    MORE_FOR_S,
    MOST_BLOCKS,
    UNTIL,
    Asked,
    Design,
    choose_design,
    find_widest,
    judge,
    parse_budget,
    parse_until,
    predict_blocks,
)
from testbed.results import Metric, Trial
from testbed.statistics import estimate_median_of_series

MEASURES = ("start", "density", "utilisation")


def starts(platform: str, values: Sequence[float], *, warmup: bool = False) -> list[Trial]:
    return [
        Trial(number, number, platform, "start", "ok", metrics=(Metric("ready", value, "s"),), warmup=warmup)
        for number, value in enumerate(values, 1)
    ]


def test_every_measure_gets_an_interval_unless_it_is_asked_otherwise() -> None:
    design = choose_design(MEASURES, 10, Asked())
    assert design.least == {"start": 10, "density": 6, "utilisation": 6}
    assert set(design.most.values()) == {MOST_BLOCKS}
    assert (design.until, design.warmups, design.budget_s, design.more_for_s) == (UNTIL, 1, None, MORE_FOR_S)
    assert choose_design(MEASURES, 3, Asked()).least["start"] == 6
    assert choose_design(("start",), 100, Asked()).most == {"start": 100}


def test_a_number_of_trials_is_exactly_that_of_each_measure() -> None:
    design = choose_design(MEASURES, 10, Asked(trials=3))
    assert design.least == design.most == dict.fromkeys(MEASURES, 3)
    assert not design.is_adaptive and design.warmups == 0


def test_the_quick_settings_have_one_block_of_the_long_measures() -> None:
    design = choose_design(MEASURES, 2, Asked(quick=True))
    assert design.least == design.most == {"start": 2, "density": 1, "utilisation": 1}
    assert choose_design(MEASURES, 7, Asked(quick=True)).least == {"start": 7, "density": 2, "utilisation": 2}
    assert design.warmups == 0 and not design.is_adaptive


def test_a_budget_takes_the_place_of_the_time_for_more() -> None:
    design = choose_design(MEASURES, 10, Asked(until=0.1, budget_s=90.0))
    assert (design.until, design.budget_s, design.more_for_s) == (0.1, 90.0, None)
    assert choose_design(MEASURES, 2, Asked(quick=True, budget_s=60.0)).budget_s == 60


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (Asked(trials=0), "--trials 0: a number of trials is at least 1"),
        (Asked(trials=-1), "--trials -1"),
        (Asked(quick=True, until=0.05), "--until 5.000%: with --quick the number of trials is fixed"),
        (Asked(trials=5, until=0.05), "--until 5.000%: with --trials 5 the number of trials is fixed"),
    ],
)
def test_what_contradicts_itself_is_refused(asked: Asked, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        choose_design(MEASURES, 10, asked)


@pytest.mark.parametrize(("text", "fraction"), [("5%", 0.05), (" 2.5 % ", 0.025), ("0.1%", 0.001), ("50%", 0.5)])
def test_widths_are_read(text: str, fraction: float) -> None:
    assert parse_until(text) == pytest.approx(fraction)


@pytest.mark.parametrize(
    "text", ["0%", "5", "0.05", "-5%", "51%", "100%", "nan%", "five", "", "%", "1e9%", "\N{ARABIC-INDIC DIGIT FIVE}%"]
)
def test_what_is_no_width_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not half the width of an interval") as raised:
        parse_until(text)
    assert "for example 5%" in raised.value.hint


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5h", 5400), ("168h", 604800)]
)
def test_budgets_are_read(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize(
    "text", ["5", "", "m", "0s", "0.0m", "-5m", "30 min", "1d", "169h", "1e3s", "nanh", "9999999h"]
)
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a time"):
        parse_budget(text)


def test_a_measure_ends_one_block_after_it_is_narrow_on_every_platform() -> None:
    design = Design({"start": 6}, {"start": 40}, until=0.05)
    narrow = [1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06]
    wide = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6]
    assert judge(design, "start", 7, starts("a", narrow)) == "±2.9% after 7 blocks"
    assert judge(design, "start", 6, starts("a", narrow[:6])) == "", "one more follows the decision"
    assert judge(design, "start", 7, [*starts("a", narrow), *starts("b", wide)]) == ""
    assert judge(design, "start", 5, starts("a", narrow[:5])) == "", "fewer than the least number"
    assert judge(design, "start", 40, starts("b", wide)) == "the most, 40 blocks: ±23.1%"


def test_a_platform_without_an_interval_is_not_narrow() -> None:
    design = Design({"start": 6}, {"start": 8}, until=0.05)
    record = [*starts("a", [1.0] * 8), *starts("b", [1.0] * 5)]
    assert find_widest("start", record) is None
    assert judge(design, "start", 7, record) == ""
    assert judge(design, "start", 8, record) == "the most, 8 blocks: without an interval on some platform"


@pytest.mark.parametrize(("correlation", "spread", "least"), [(0.0, 0.1, 0.945), (0.5, 0.05, 0.92)])
def test_an_interval_that_ends_a_run_covers_the_median_as_often_as_it_says(
    correlation: float, spread: float, least: float
) -> None:
    """Lognormal values, independent, or with half of their deviation from the trial before. Without the block after the
    decision it were 92 % of the independent ones, by intervals that take them for such 83 % of the others.
    The chance of the simulation is 1.2 %."""
    design = Design({"start": 6}, {"start": 40}, until=0.05)
    source = random.Random(1)
    covered, runs = 0, 400
    for _ in range(runs):
        values: list[float] = []
        state = source.gauss(0, 1)
        while len(values) < 6 or not judge(design, "start", len(values), starts("a", values)):
            values.append(math.exp(spread * state))
            state = correlation * state + math.sqrt(1 - correlation**2) * source.gauss(0, 1)
        estimate = estimate_median_of_series(values)
        covered += estimate.low <= 1 <= estimate.high
    assert covered / runs > least


def test_trials_too_few_to_show_correlation_must_be_twice_as_narrow() -> None:
    design = Design({"start": 6}, {"start": 40}, until=0.05)
    values = [1.0, 1.06, 1.02, 1.05, 1.01, 1.04, 1.03, 1.0, 1.06, 1.02, 1.05]  # +-2.9 %
    assert judge(design, "start", 9, starts("a", values[:9])) == ""
    assert predict_blocks(design, "start", 9, starts("a", values[:9])) == 11
    assert judge(design, "start", 11, starts("a", values)).endswith("after 11 blocks")


def test_a_run_whose_trials_resemble_each_other_goes_on() -> None:
    design = Design({"start": 6}, {"start": 40}, until=0.05)
    rising = [1 + 0.0115 * at for at in range(12)]
    assert judge(design, "start", 12, starts("a", rising)) == ""
    assert judge(design, "start", 12, starts("a", [rising[5 * at % 12] for at in range(12)])) == "±3.8% after 12 blocks"


def test_warm_ups_and_failures_are_no_evidence() -> None:
    design = Design({"start": 6}, {"start": 40}, until=0.05)
    record = [*starts("a", [9.0], warmup=True), *starts("a", [1.0] * 7)]
    assert judge(design, "start", 7, record) == "±0.0% after 7 blocks"
    failed = [Trial(number, number, "a", "start", "failed") for number in range(1, 7)]
    assert judge(design, "start", 6, failed) == "no trial of it counts after 6 blocks"


def test_a_measure_without_a_headline_gets_the_least_number() -> None:
    design = Design({"other": 6}, {"other": 40}, until=0.05)
    record = [Trial(number, number, "a", "other", "ok") for number in range(1, 7)]
    assert judge(design, "other", 6, record) == "6 blocks: it has no figure to be judged by"


def test_utilisation_is_judged_at_every_rate() -> None:
    def trials(rate: float, values: Sequence[float]) -> list[Trial]:
        metric = "cpu_per_request"
        return [
            Trial(1, block, "a", "utilisation", "ok", "", {"rate_per_s": rate}, (Metric(metric, value, "s"),))
            for block, value in enumerate(values, 1)
        ]

    level, spread = trials(10.0, [1.0] * 6), trials(20.0, [1.0, 1.0, 1.0, 1.0, 1.0, 2.0])
    assert find_widest("utilisation", level) == 0
    assert find_widest("utilisation", [*level, *spread]) == pytest.approx(0.5)


def test_a_median_of_nothing_is_never_narrow_unless_it_is_constant() -> None:
    assert find_widest("start", starts("a", [0.0] * 6)) == 0
    assert find_widest("start", starts("a", [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])) == float("inf")


def test_the_number_of_blocks_is_foreseen_by_the_root_law() -> None:
    design = Design({"start": 6}, {"start": 40}, until=0.05)
    source = random.Random(1)
    values = [source.lognormvariate(0, 0.1) for _ in range(10)]
    record = starts("a", values)
    widest = find_widest("start", record)
    assert widest is not None and widest > 0.05
    assert predict_blocks(design, "start", 10, record) == min(40, -(-10 * (widest / 0.05) ** 2 // 1) + 1)
    assert predict_blocks(design, "start", 3, record[:3]) == 6
    assert predict_blocks(design, "start", 7, starts("a", [1.0] * 7)) == 7
    assert predict_blocks(Design({"start": 2}, {"start": 2}), "start", 1, record) == 2


def test_a_measure_without_a_headline_has_its_least_number_of_blocks() -> None:
    design = choose_design(("start", "neighbours"), 10, Asked())
    assert (design.least["neighbours"], design.most["neighbours"]) == (6, 6)
    assert design.most["start"] == 40
    trials = [Trial(1, block, "container", "neighbours", "ok") for block in range(1, 8)]
    assert judge(design, "neighbours", 6, trials).startswith("6 blocks")
    assert not judge(design, "neighbours", 5, trials)
    assert choose_design(("neighbours",), 10, Asked(quick=True)).least == {"neighbours": 3}


def test_what_decides_while_a_run_measures_needs_no_numpy() -> None:
    """The reference machine has none."""
    program = """
import sys
from testbed.measures.design import Design, judge, predict_blocks
from testbed.results import Metric, Trial
design = Design({"start": 6}, {"start": 40}, until=0.05)
values = [1 + at / 30 for at in range(24)]
record = [Trial(at, at, "a", "start", "ok", metrics=(Metric("ready", value, "s"),)) for at, value in enumerate(values)]
assert judge(design, "start", 24, record) == "" and predict_blocks(design, "start", 24, record) == 40
assert not {"numpy", "scipy", "pandas"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True)
