"""Reads what was sampled of instances and the host while a trial ran, as series over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from testbed.analysis import Run
from testbed.results import INSTANCES_OF_STEP, Trial
from testbed.tables import parse_figure, read_table

# Seconds since sampling began, and what was read then.
Series = tuple[tuple[float, float], ...]


def read_timeline(run: Run, trial: Trial) -> Mapping[str, Mapping[str, Series]]:
    """Return the series of a trial by instance (or ``host``) and column (docs/run-folder.md), in the order of time.

    Of ``density`` and ``consolidation`` they are of the last window. Empty for other measures, and where the file is
    gone or damaged.
    """
    path = run.folder.samples_path(trial)
    if path is not None and trial.measure in ("density", "consolidation"):
        path = path.with_name(f"{path.stem}{INSTANCES_OF_STEP}.csv")
    points: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in read_table(path):
        t_s, name = parse_figure(row.get("t_s")), row.get("name")
        if t_s is None or not name:
            continue
        of_name = points.setdefault(name, {})
        for column, text in row.items():
            if column not in ("t_s", "name") and (value := parse_figure(text)) is not None:
                of_name.setdefault(column, []).append((t_s, value))
    return {
        name: {column: tuple(sorted(series)) for column, series in columns.items()} for name, columns in points.items()
    }


def compute_rates(series: Sequence[tuple[float, float]], unit: float = 1.0) -> Series:
    """Return how fast a counter rose up to each of its points, in ``unit`` per second: with 1e9 the processors that
    ``cpu_ns`` kept busy, with 1e6 the fraction of time of a pressure. A counter that fell is left out there."""
    return tuple(
        (until_s, (after - before) / unit / (until_s - since_s))
        for (since_s, before), (until_s, after) in pairwise(series)
        if until_s > since_s and after >= before
    )
