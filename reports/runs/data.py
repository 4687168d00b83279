"""A comparison as data, ready for ``json.dumps``; docs/run-folder.md describes it."""

from __future__ import annotations

from typing import Any

from msgspec import to_builtins

from reports.runs import wording
from testbed.runs.compare import Comparison
from testbed.runs.verdict import EXIT_CODES

# Raised when a reader of the version before would read the document wrong.
SCHEMA = "testbed-comparison/1"


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison in base units (s, bytes, fractions), the figure with the most harm first."""
    return {
        "schema": SCHEMA,
        "scenario": comparison.scenario,
        "clock": comparison.clock,
        "result": comparison.result,
        "exit_code": EXIT_CODES[comparison.result],
        "sentence": wording.describe_result(comparison),
        "before": to_builtins(comparison.before),
        "after": to_builtins(comparison.after),
        "differences": [to_builtins(one) for one in comparison.differences],
        "notes": list(comparison.notes),
        "figures": [
            {
                "name": row.figure.name,
                **to_builtins(row.figure),
                "unit": row.figure.direction.unit,
                "better": row.figure.direction.better,
                "harm": row.harm,
                **{
                    part: to_builtins(getattr(row, part))
                    for part in ("before", "after", "change", "noise", "judgement")
                },
            }
            for row in comparison.rows
        ],
        "failures": [to_builtins(one) for one in comparison.failures],
        "missing": [{"name": figure.name, "reason": reason} for figure, reason in comparison.missing],
    }
