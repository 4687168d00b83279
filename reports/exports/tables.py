"""The figures of runs as tables of others: Bencher's JSON, Otava's CSV, and a tidy CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from runtime.output import printable
from testbed.runs.fingerprint import read_commit
from testbed.runs.sides import Measured
from testbed.statistics import estimate_median_of_series

_COLUMNS = (
    "run", "scenario", "platform", "measure", "metric", "rate_per_s", "median", "low", "high", "level", "trials",
    "unit", "clock", "mix",
)  # fmt: skip


def export_bencher(measured: Measured) -> bytes:
    """Return a run in Bencher Metric Format: by benchmark, ``clickme/container/utilisation@50``, and measure."""
    results: dict[str, dict[str, dict[str, float]]] = {}
    for figure, values in measured.figures.items():
        estimate = estimate_median_of_series(values)
        bounds = {"lower_value": estimate.low, "upper_value": estimate.high} if estimate.is_interval else {}
        name = printable(f"{measured.run.folder.scenario}/{figure.platform}/{figure.measure}{figure.level}")
        results.setdefault(name, {})[figure.metric] = {"value": estimate.value, **bounds}
    return json.dumps(results, indent=2, allow_nan=False).encode() + b"\n"


def export_otava(runs: Sequence[Measured]) -> bytes:
    """Return runs in the CSV that Apache Otava reads: a row a run, with its time, id and commit, and a column a figure;
    what a run has not is empty."""
    names = list(dict.fromkeys(figure for one in runs for figure in one.figures))
    head = ("time", "run", "commit", *(printable(figure.name) for figure in names))
    rows = [
        (
            _cell(one.run.manifest.get("started")),
            _cell(one.run_id),
            read_commit(one.run),
            *(
                repr(estimate_median_of_series(one.figures[figure]).value) if figure in one.figures else ""
                for figure in names
            ),
        )
        for one in runs
    ]
    return _write(head, rows)


def export_csv(runs: Sequence[Measured]) -> bytes:
    """Return a row a figure and run: its median in base units, with its interval or range."""
    rows = []
    for one in runs:
        clock = "instructions" if one.run.instruction_time else "host"
        for figure, values in one.figures.items():
            found = estimate_median_of_series(values)
            name = (_cell(one.run_id), _cell(one.run.folder.scenario), _cell(figure.platform))
            numbers = (found.value, found.low, found.high, found.level, found.n)
            rate = figure.rate_per_s or ""
            rows.append(
                (*name, figure.measure, figure.metric, rate, *numbers, figure.direction.unit, clock, _cell(figure.mix))
            )
    return _write(_COLUMNS, rows)


def _cell(value: object) -> str:
    """Return a text from a run folder as a cell: one line, and none that a spreadsheet would take for a formula."""
    text = " ".join(printable(str(value or "")).split())
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _write(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().encode()
