"""How long a run takes: from what it took so far, and before that from the scenario's settings."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from testbed.measures.pace import TYPICAL_START_S, Pace, Step, describe_time, guess_s, show_seconds
from testbed.scenario.model import Settings
from tests.testbed.measures.conftest import SETTINGS


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "about 10 s"), (44, "about 40 s"), (89, "about 90 s"), (240, "about 4 min"), (3600 * 2, "about 2.0 h")],
)
def test_a_time_is_no_more_exact_than_it_is_known(seconds: float, text: str) -> None:
    assert describe_time(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(90, "90 s"), (1800, "30 min"), (7200, "2 h"), (0.5, "0.5 s")])
def test_a_time_that_was_asked_for_is_told_as_it_was(seconds: float, text: str) -> None:
    assert show_seconds(seconds) == text


class Clock:
    """A clock that a test turns."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def take(pace: Pace, clock: Clock, step: Step, seconds: float) -> None:
    pace.begin(step)
    clock.now_s += seconds
    pace.end()


def test_what_was_measured_counts_and_what_was_not_is_guessed() -> None:
    clock = Clock()
    pace = Pace(lambda measure, group: {"start": 5.0, "density": 60.0}[measure], clock)
    starts, ramp = Step("start", ("a",)), Step("density", ("a",))
    assert pace.expect_s([starts, starts, ramp]) == 70
    take(pace, clock, starts, 2)
    take(pace, clock, starts, 4)
    assert pace.expect_s([starts, starts, ramp]) == 3 + 3 + 60


def test_a_platform_that_is_not_known_yet_is_guessed_by_how_wrong_others_were() -> None:
    clock = Clock()
    pace = Pace(lambda measure, group: 20.0 if group == ("vm",) else 2.0, clock)
    take(pace, clock, Step("start", ("container",)), 6)
    assert pace.expect_s([Step("start", ("vm",))]) == 60


def test_the_two_of_a_duet_are_one_step_in_either_order() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    take(pace, clock, Step("start", ("a", "b")), 7)
    assert pace.expect_s([Step("start", ("b", "a"))]) == 7


def test_a_guess_follows_the_settings() -> None:
    def guess(settings: Settings, measure: str) -> float:
        return guess_s(measure, settings, boots=False)

    longer = replace(SETTINGS, load=replace(SETTINGS.load, duration_s=30.0), density=replace(SETTINGS.density, cap=30))
    for measure in ("start", "density", "utilisation"):
        assert 0 < guess(SETTINGS, measure) < guess(longer, measure)
        assert guess(SETTINGS, measure) < guess_s(measure, SETTINGS, boots=True)


def test_of_a_ramp_only_the_steps_asked_for_take_their_windows() -> None:
    def guess(cap: int, *steps: int) -> float:
        density = replace(SETTINGS.density, settle_s=2.0, window_s=5.0, rate_per_s=100.0, cap=cap, steps=steps)
        return guess_s("density", replace(SETTINGS, density=density), boots=False)

    assert guess(24, 12, 24) < guess(24) / 2
    assert guess(24, *range(1, 25)) > guess(24, 12, 24) > guess(24, 24) > 24 * TYPICAL_START_S
