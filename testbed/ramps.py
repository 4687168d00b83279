"""Reads density ramps: how far they came, what copies take, and what was seen at each step, over all ramps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from testbed.analysis import Run, read_samples, select_numbers, select_trials, select_values
from testbed.breakdown import EMULATOR_PARTS, PARTS
from testbed.copies import CopyMemory, copy_memory, taken_bytes
from testbed.histograms import LEAST_BEYOND
from testbed.results import PARTS_OF_STEPS, Trial
from testbed.statistics import Estimate, estimate_median_of_series
from testbed.tables import parse_figure, read_table

__all__ = ["EMULATOR_PARTS", "PARTS", "CopyMemory", "taken_bytes"]

# What a step can be found to be (testbed.measures.level).
VERDICTS = ("held", "undecided", "broke")


class Ramp(Struct, frozen=True):
    """One density trial: how far it went, why it stopped, and the columns of its samples, a value for each step.

    ``held`` is with how many applications the service level held for sure, None in a run that did not ask;
    ``verdicts`` has one of ``VERDICTS`` for each step, "" where none is recorded.
    """

    trial: int
    platform: str
    applications: int
    reason: str
    points: Mapping[str, Sequence[float]]
    held: int | None = None
    verdicts: tuple[str, ...] = ()


class Step(Struct, frozen=True):
    """What ``ramps`` ramps saw with so many applications: medians over them, in seconds and milliseconds.

    ``start_s`` is of the newest application, from its request until it was ready. ``requests``, of these ``slow``,
    and ``windows`` add the ramps up, None where one has not recorded them. ``p99_ms`` is None where a ramp has fewer
    than five requests beyond it. ``bounds`` are the least and the greatest end of the ramps' intervals (0 to 1) of the
    fraction that is slow; ``verdicts`` has one of each ramp that recorded it.
    """

    applications: int
    ramps: int
    start_s: Estimate | None = None
    p50_ms: Estimate | None = None
    p99_ms: Estimate | None = None
    requests: int | None = None
    slow: int | None = None
    windows: int | None = None
    bounds: tuple[float, float] | None = None
    verdicts: tuple[str, ...] = ()


class PartsOfStep(Struct, frozen=True):
    """What one of so many applications holds on average in each part (testbed.breakdown) and in all, bytes, medians
    over ramps."""

    applications: int
    parts: Mapping[str, Estimate]
    total: Estimate


def select_ramps(run: Run, platform: str) -> tuple[Ramp, ...]:
    """Return the density trials that are evidence, with the points that they are judged by."""
    return run.remember(
        ("ramps", platform), lambda: tuple(_ramp(run, trial) for trial in select_trials(run, "density", platform))
    )


def is_capped(run: Run, platform: str) -> bool:
    """Return whether each ramp ended at its cap, so that it is not known how many copies there could have been."""
    ramps = select_ramps(run, platform)
    return bool(ramps) and all(ramp.reason.startswith("cap:") for ramp in ramps)


def _ramp(run: Run, trial: Trial) -> Ramp:
    points: Mapping[str, Sequence[float]] = {}
    verdicts: list[object] = []
    if (table := read_samples(run, trial)) is not None:
        points = select_numbers(table.drop(columns="verdict", errors="ignore"))
        verdicts = table["verdict"].tolist() if "verdict" in table.columns else []
    held = trial.value("applications_held")
    return Ramp(
        trial.trial,
        trial.platform,
        int(trial.value("applications") or 0),
        trial.reason,
        points,
        None if held is None else int(held),
        tuple(str(one) if one in VERDICTS else "" for one in verdicts),
    )


def estimate_memory_of_copies(run: Run, platform: str, ruler: str) -> CopyMemory | None:
    """Return what the first copy and each further one take, in bytes by one ruler, over all ramps; None without any."""
    return run.remember(
        ("memory", platform, ruler), lambda: copy_memory((ramp.points for ramp in select_ramps(run, platform)), ruler)
    )


def estimate_memory_parts(run: Run, platform: str) -> dict[str, Estimate]:
    """Return what a copy of the application holds in each part (see testbed.breakdown), bytes, at the ends of the
    ramps."""
    observed = {name: select_values(run, "density", platform, f"part_{name}") for name in PARTS}
    return {name: estimate_median_of_series(held) for name, held in observed.items() if held}


def list_counts(ramps: Iterable[Ramp]) -> tuple[int, ...]:
    """Return with how many applications some ramp had a step, ascending."""
    counts = set[float]().union(*(ramp.points.get("applications", ()) for ramp in ramps))
    return tuple(sorted({int(count) for count in counts if count >= 1}))


def summarise_steps(ramps: Sequence[Ramp], counts: Iterable[int]) -> tuple[Step, ...]:
    """Return the steps with these numbers of applications, those that some ramp has come to."""
    rows = [dict(zip(ramp.points.get("applications", ()), itertools.count())) for ramp in ramps]
    steps = []
    for count in counts:
        if reached := [(ramp, row[count]) for ramp, row in zip(ramps, rows, strict=True) if count in row]:
            steps.append(_summarise(count, reached))
    return tuple(steps)


_Reached = Sequence[tuple[Ramp, int]]


def _summarise(count: int, reached: _Reached) -> Step:
    requests = _read(reached, "requests")
    is_told = all(value >= 100 * LEAST_BEYOND for value in requests)
    lows, highs = _read(reached, "slow_low"), _read(reached, "slow_high")
    found = [ramp.verdicts[row] for ramp, row in reached if row < len(ramp.verdicts)]
    return Step(
        count,
        len(reached),
        _estimate(_read(reached, "start_s")),
        _estimate(_read(reached, "p50_ms")),
        _estimate(_read(reached, "p99_ms")) if is_told else None,
        _add(requests, reached),
        _add(_read(reached, "slow"), reached),
        _add(_read(reached, "windows"), reached),
        (min(lows), max(highs)) if lows and highs and max(highs) <= 1 else None,
        tuple(verdict for verdict in found if verdict),
    )


def _read(reached: _Reached, column: str) -> list[float]:
    """Return a column's values at these steps, those that are no damage."""
    values = (ramp.points[column][row] for ramp, row in reached if column in ramp.points)
    return [value for value in values if math.isfinite(value) and value >= 0]


def _estimate(values: Sequence[float]) -> Estimate | None:
    """Return the median of times; nothing takes no time at all."""
    taken = [value for value in values if value > 0]
    return estimate_median_of_series(taken) if taken else None


def _add(values: Sequence[float], reached: _Reached) -> int | None:
    return int(sum(values)) if len(values) == len(reached) else None


def select_parts(run: Run, platform: str) -> tuple[PartsOfStep, ...]:
    """Return what an application holds at each step where memory was broken down."""
    return run.remember(("parts of steps", platform), lambda: _select_parts(run, platform))


def _select_parts(run: Run, platform: str) -> tuple[PartsOfStep, ...]:
    by_count: dict[int, dict[str, list[float]]] = {}
    totals: dict[int, list[float]] = {}
    for trial in select_trials(run, "density", platform):
        for count, parts in _read_parts(run, trial).items():
            totals.setdefault(count, []).append(sum(parts.values()))
            for name, held in parts.items():
                by_count.setdefault(count, {}).setdefault(name, []).append(held)
    return tuple(
        PartsOfStep(
            count,
            {name: estimate_median_of_series(parts[name]) for name in PARTS if name in parts},
            estimate_median_of_series(totals[count]),
        )
        for count, parts in sorted(by_count.items())
    )


def _read_parts(run: Run, trial: Trial) -> dict[int, dict[str, float]]:
    """Return what one application holds on average in a ramp, bytes by part, by the number of applications."""
    path = run.folder.samples_path(trial)
    held: dict[int, dict[str, float]] = {}
    for row in read_table(path.with_name(f"{path.stem}{PARTS_OF_STEPS}.csv") if path else None):
        count, size, name = parse_figure(row.get("applications")), parse_figure(row.get("bytes")), row.get("part", "")
        if count is not None and count >= 1 and name in PARTS and size is not None:
            held.setdefault(int(count), {})[name] = size / int(count)
    return held
