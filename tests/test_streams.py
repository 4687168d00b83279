"""Two streams of tests fail when one fails, and pass when one has nothing to do."""

from __future__ import annotations

import pytest

from tests.streams import make_commands, verdict


@pytest.mark.parametrize(
    ("statuses", "status"), [((0, 0), 0), ((0, 1), 1), ((1, 0), 1), ((5, 0), 0), ((0, 5), 0), ((5, 5), 5), ((5, 2), 2)]
)
def test_one_failure_is_enough(statuses: tuple[int, int], status: int) -> None:
    assert verdict(*statuses) == status


def test_every_test_is_in_one_stream_and_both_have_the_selection() -> None:
    commands = make_commands(["--durations=10", "-k", "lab"])
    assert commands.guests[-5:] == ("--durations=10", "-k", "lab", "-m", "vm")
    assert commands.rest[-5:] == ("--durations=10", "-k", "lab", "-m", "not vm")


def test_coverage_is_measured_when_it_is_asked_for_and_not_beside_guests() -> None:
    commands = make_commands(["--coverage"])
    assert "--cov" in commands.rest and "--cov" not in commands.guests
    assert "--coverage" not in (*commands.rest, *commands.guests)
    assert "--cov" not in make_commands([]).rest
