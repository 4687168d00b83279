"""Streams of tests fail when one fails, and pass when one has nothing to do."""

from __future__ import annotations

from itertools import product

import pytest
from _pytest.mark.expression import Expression

from tests.streams import STREAMS, make_commands, verdict


@pytest.mark.parametrize(
    ("statuses", "status"), [((0, 0), 0), ((0, 1), 1), ((1, 0), 1), ((5, 0), 0), ((0, 5), 0), ((5, 5), 5), ((5, 2), 2)]
)
def test_one_failure_is_enough(statuses: tuple[int, int], status: int) -> None:
    assert verdict(*statuses) == status


def test_every_test_is_in_one_stream() -> None:
    for marks in product((False, True), repeat=3):
        marked = {name for name, is_marked in zip(("vm", "machine", "network"), marks, strict=True) if is_marked}

        def has(name: str, /, **_: str | int | bool | None) -> bool:
            return name in marked  # noqa: B023 # it is asked at once

        chosen = [name for name, expression in STREAMS.items() if Expression.compile(expression).evaluate(has)]
        assert len(chosen) == 1, (marked, chosen)


def test_all_streams_have_the_selection() -> None:
    for name, command in make_commands(["--durations=10", "-k", "lab"]).items():
        assert command[-5:] == ("--durations=10", "-k", "lab", "-m", STREAMS[name])


def test_coverage_is_measured_when_it_is_asked_for_and_not_beside_guests() -> None:
    commands = make_commands(["--coverage"])
    assert [name for name, command in commands.items() if "--cov" in command] == ["the rest"]
    assert not any("--coverage" in command for command in commands.values())
    assert not any("--cov" in command for command in make_commands([]).values())
