"""Levels of a measure: what tells the trials of a block on one platform apart, where there are several."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from testbed.results import Trial

# A rate of utilisation, in requests per second; the name of a case of neighbours (testbed.neighbours.cases), or of a
# mix of consolidation (testbed.scenario.consolidation).
Level = float | str
# The parameter of a trial that has its level, by measure.
LEVELS: Mapping[str, str] = MappingProxyType(
    {"utilisation": "rate_per_s", "neighbours": "case", "consolidation": "mix"}
)
# The measures whose levels have names.
_NAMED = ("neighbours", "consolidation")


def find_level(trial: Trial) -> Level | None:
    """Return a trial's level; None where its measure has none, or its line in the run folder names none."""
    value = trial.parameters.get(LEVELS.get(trial.measure, ""))
    if trial.measure in _NAMED:
        return value if isinstance(value, str) else None
    return float(value) if isinstance(value, int | float) else None
