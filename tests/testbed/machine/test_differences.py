"""Two runs are compared to the first difference of each kind."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from runtime.errors import UsageError
from testbed.ladder.store import encode_results
from testbed.machine.differences import compare_ladders, compare_trials
from tests.reports.ladder.records import make_ladder
from tests.testbed.machine.trials import make_trial


def test_identical_trials_do_not_differ() -> None:
    assert compare_trials(make_trial(1, 2.0), make_trial(1, 2.0)) == ()


def test_the_first_trial_that_differs_is_told_for_each_metric() -> None:
    before = make_trial(1, 2.0) + make_trial(2, 2.0) + make_trial(3, 2.0)
    after = make_trial(1, 2.0) + make_trial(2, 2.5) + make_trial(3, 2.6)
    (one,) = compare_trials(before, after)
    assert str(one) == "ready differs from trial 2 on: 2.5 instead of 2.0"


def test_a_missing_trial_and_another_outcome_are_differences() -> None:
    found = {
        one.metric: one.trial
        for one in compare_trials(make_trial(1, 2.0) + make_trial(2, 2.0), make_trial(1, 2.0, "failed"))
    }
    assert found == {"outcome": 1, "trials": 1}


def test_what_is_another_each_time_is_no_difference() -> None:
    ladder = make_ladder()
    again = replace(ladder, id="another", started="2027-01-01", host={"kernel": "7"}, took_s=1.0, missing=())
    assert encode_results(again) == encode_results(ladder)
    assert compare_ladders(encode_results(ladder), encode_results(again)) == ()


def test_each_verdict_and_figure_that_differs_is_told() -> None:
    ladder = make_ladder()
    outcome, cost = ladder.outcomes[0], ladder.costs[0]
    other = replace(outcome, verdict="untestable" if outcome.verdict != "untestable" else "blocked")
    dearer = replace(cost, values=(*cost.values[:-1], cost.values[-1] + 1.0))
    again = replace(ladder, outcomes=(other, *ladder.outcomes[1:]), costs=(dearer, *ladder.costs[1:]))
    told = [str(one) for one in compare_ladders(encode_results(ladder), encode_results(again))]
    assert told == [
        f"{outcome.rung}: {outcome.probe} differs: {other.verdict} instead of {outcome.verdict}",
        f"{cost.rung}: {cost.metric} differs from trial {len(cost.values)} on: {dearer.values[-1]!r} instead of"
        f" {cost.values[-1]!r}",
    ]
    fewer = replace(ladder, outcomes=ladder.outcomes[1:])
    (missing,) = compare_ladders(encode_results(ladder), encode_results(fewer))
    assert (missing.expected, missing.found) == (outcome.verdict, "nothing")


def test_a_difference_that_has_no_name_is_one_and_a_damaged_record_an_error() -> None:
    ladder = make_ladder()
    again = replace(ladder, snippets=())
    assert [one.metric for one in compare_ladders(encode_results(ladder), encode_results(again))] == ["details"]
    with pytest.raises(UsageError, match="is damaged"):
        compare_ladders(b"{", encode_results(ladder))
