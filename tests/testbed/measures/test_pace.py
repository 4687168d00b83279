"""How far a run is, in words."""

from __future__ import annotations

import pytest

from testbed.measures.pace import Pace, describe_duration
from testbed.measures.schedule import PlannedTrial


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "about 10 s left"),
        (44, "about 40 s left"),
        (89, "about 90 s left"),
        (240, "about 4 min left"),
        (3600 * 2, "about 2.0 h left"),
    ],
)
def test_a_time_left_is_no_more_exact_than_it_is_known(seconds: float, text: str) -> None:
    assert describe_duration(seconds) == text


def test_the_rest_is_as_long_as_its_like_was() -> None:
    now_s = 0.0
    planned = [
        PlannedTrial(1, 1, "container", "start"),
        PlannedTrial(2, 1, "vm", "start"),
        PlannedTrial(3, 2, "vm", "start"),
        PlannedTrial(4, 2, "container", "start"),
        PlannedTrial(5, 3, "vm", "utilisation", (10.0, 20.0, 50.0)),
        PlannedTrial(8, 3, "container", "utilisation", (10.0, 20.0, 50.0)),
    ]
    pace = Pace(planned, lambda: now_s)
    seen = []
    for one, took_s in zip(planned, (2, 20, 20, 2, 60, 60), strict=True):
        seen.append((pace.begin(one), pace.left()))
        now_s += took_s
    assert seen == [
        ("trial 1 of 10", ""),
        ("trial 2 of 10", ""),
        ("trial 3 of 10", ""),
        ("trial 4 of 10", ""),
        ("trials 5 to 7 of 10", ""),  # nothing is known of utilisation yet
        ("trials 8 to 10 of 10", "about 60 s left"),
    ]


def test_another_platforms_time_stands_in_for_one_that_is_not_known() -> None:
    now_s = 0.0
    planned = [PlannedTrial(number, 1, f"platform-{number}", "start") for number in (1, 2, 3)]
    pace = Pace(planned, lambda: now_s)
    pace.begin(planned[0])
    now_s = 240.0
    pace.begin(planned[1])
    assert pace.left() == "about 8 min left"


def test_a_trial_that_was_not_planned_has_a_number_only() -> None:
    pace = Pace()
    assert (pace.begin(PlannedTrial(3, 1, "vm", "start")), pace.left()) == ("trial 3", "")
