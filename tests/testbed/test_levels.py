"""What tells the trials of a block apart, also in a folder that somebody has written into."""

from __future__ import annotations

import pytest

from testbed.levels import find_level
from testbed.results import Trial


@pytest.mark.parametrize(
    ("measure", "parameters", "level"),
    [
        ("utilisation", {"rate_per_s": 50}, 50.0),
        ("utilisation", {"rate_per_s": "fast"}, None),
        ("consolidation", {"mix": "8%", "rate_per_s": 50.0}, "8%"),
        ("consolidation", {"mix": 8.0}, None),
        ("density", {"rate_per_s": 5.0}, None),
        ("start", {}, None),
    ],
)
def test_each_measure_has_its_own(measure: str, parameters: dict[str, float | str], level: float | str | None) -> None:
    assert find_level(Trial(1, 1, "container", measure, "ok", parameters=parameters)) == level
