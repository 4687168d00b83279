"""Reads what was sampled of instances and the host while a load ran, as series over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from testbed.analysis import Run, read_samples, select_numbers
from testbed.results import Trial

# Seconds since sampling began, and what was read then.
Series = tuple[tuple[float, float], ...]


def read_timeline(run: Run, trial: Trial) -> Mapping[str, Mapping[str, Series]]:
    """Return the series of a trial of ``utilisation`` by instance (or ``host``) and column (docs/run-folder.md), in the
    order of time. Empty where the file is gone or damaged, and for what has no such rows."""
    table = read_samples(run, trial)
    if table is None or not {"t_s", "name"} <= set(table.columns):
        return {}
    names = table["name"].fillna("").astype(str).tolist()
    numbers = select_numbers(table.drop(columns="name"))
    rows: dict[str, list[int]] = {}
    for row, (name, t_s) in enumerate(zip(names, numbers["t_s"], strict=True)):
        if name and math.isfinite(t_s):
            rows.setdefault(name, []).append(row)
    return {
        name: {
            column: series
            for column, values in numbers.items()
            if column != "t_s" and (series := _select(numbers["t_s"], values, of))
        }
        for name, of in rows.items()
    }


def _select(times: Sequence[float], values: Sequence[float], rows: Sequence[int]) -> Series:
    return tuple(sorted((times[row], values[row]) for row in rows if math.isfinite(values[row])))


def compute_rates(series: Sequence[tuple[float, float]], unit: float = 1.0) -> Series:
    """Return how fast a counter rose up to each of its points, in ``unit`` per second: with 1e9 the processors that
    ``cpu_ns`` kept busy, with 1e6 the fraction of time of a pressure. A counter that fell is left out there."""
    return tuple(
        (until_s, (after - before) / unit / (until_s - since_s))
        for (since_s, before), (until_s, after) in pairwise(series)
        if until_s > since_s and after >= before
    )
