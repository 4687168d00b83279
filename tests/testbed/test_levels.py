"""What tells the trials of a block apart, also where a folder's line says something else."""

from __future__ import annotations

import pytest

from testbed.levels import LEVELS, Level, find_level
from testbed.results import Trial


@pytest.mark.parametrize(
    ("measure", "value", "level"),
    [
        ("utilisation", 50, 50.0),
        ("utilisation", "50", None),
        ("neighbours", "alone", "alone"),
        ("neighbours", 7.0, None),
        ("consolidation", "8%", "8%"),
        ("consolidation", 8.0, None),
        ("start", 50, None),
    ],
)
def test_a_level_is_of_its_measures_kind_or_none(measure: str, value: float | str, level: Level | None) -> None:
    parameters = {name: value for name in LEVELS.values()}
    assert find_level(Trial(1, 1, "container", measure, "ok", parameters=parameters)) == level
    assert find_level(Trial(1, 1, "container", measure, "ok")) is None
