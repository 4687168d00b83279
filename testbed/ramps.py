"""Reads what density ramps saw at each step: start and latency beside so many others, verdicts, memory by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from testbed.analysis import Run
from testbed.breakdown import PARTS
from testbed.histograms import LEAST_BEYOND
from testbed.results import PARTS_OF_STEPS, Trial
from testbed.statistics import Estimate, estimate_median
from testbed.tables import Row, parse_figure, read_table

# Of how many applications it is certain that they were within the service level.
HELD = "applications_held"
VERDICTS = ("held", "broke", "undecided")


class Step(Struct, frozen=True):
    """What ramps saw with so many applications: medians over them, in seconds and milliseconds.

    ``start_s`` is of the newest application, from its request until it was ready. ``p99_ms`` is None unless every ramp
    has five requests beyond it. ``requests`` and ``slow`` add the ramps up; ``verdicts`` has one a ramp.
    """

    applications: int
    start_s: Estimate
    p50_ms: Estimate
    p99_ms: Estimate | None
    requests: int
    slow: int
    verdicts: tuple[str, ...]


class PartsOfStep(Struct, frozen=True):
    """What one of so many applications holds on average in each part (testbed.breakdown), bytes, medians over ramps."""

    applications: int
    parts: Mapping[str, Estimate]


class Density(Struct, frozen=True):
    """What all ramps of a platform saw; ``held`` are the applications that each held for sure."""

    held: tuple[float, ...]
    steps: tuple[Step, ...]
    parts: tuple[PartsOfStep, ...]


def read_density(run: Run, platform: str) -> Density:
    """Return the steps of all ramps of a platform, and what is certain of each."""
    held = (trial.value(HELD) for trial in select_density(run, platform))
    known = tuple(value for value in held if value is not None)
    return Density(known, select_steps(run, platform), select_parts(run, platform))


def select_density(run: Run, platform: str) -> tuple[Trial, ...]:
    """Return the density trials of a platform that count."""
    return tuple(one for one in run.trials if one.counted and (one.measure, one.platform) == ("density", platform))


def select_steps(run: Run, platform: str) -> tuple[Step, ...]:
    """Return the steps of all ramps of a platform, by the number of applications; none of ramps that an older testbed
    made, which do not say how long a start took."""
    seen = [
        one
        for trial in select_density(run, platform)
        for row in read_table(run.folder.samples_path(trial))
        if (one := _parse(row)) is not None
    ]
    counts = sorted({one.applications for one in seen})
    return tuple(_step(count, [one for one in seen if one.applications == count]) for count in counts)


class _Seen(Struct, frozen=True):
    """One step of one ramp."""

    applications: int
    requests: int
    slow: int
    start_s: float
    p50_ms: float
    p99_ms: float
    verdict: str


def _parse(row: Row) -> _Seen | None:
    """Return a row of a ramp's samples; None for the empty host and for what lacks a figure."""
    names = ("applications", "requests", "slow", "start_s", "p50_ms", "p99_ms")
    values = [parse_figure(row.get(name)) for name in names]
    known = [value for value in values if value is not None and value >= 0]
    if len(known) < len(names) or known[0] < 1 or known[1] < 1:
        return None
    verdict = row.get("verdict", "")
    applications, requests, slow, start_s, p50_ms, p99_ms = known
    return _Seen(
        int(applications), int(requests), int(slow), start_s, p50_ms, p99_ms, verdict if verdict in VERDICTS else ""
    )


def _step(applications: int, seen: Sequence[_Seen]) -> Step:
    is_told = all(one.requests >= 100 * LEAST_BEYOND for one in seen)
    return Step(
        applications,
        estimate_median([one.start_s for one in seen]),
        estimate_median([one.p50_ms for one in seen]),
        estimate_median([one.p99_ms for one in seen]) if is_told else None,
        sum(one.requests for one in seen),
        sum(one.slow for one in seen),
        tuple(one.verdict for one in seen if one.verdict),
    )


def select_parts(run: Run, platform: str) -> tuple[PartsOfStep, ...]:
    """Return what an application holds at each step where memory was broken down."""
    by_count: dict[int, dict[str, list[float]]] = {}
    for trial in select_density(run, platform):
        path = run.folder.samples_path(trial)
        for row in read_table(path.with_name(f"{path.stem}{PARTS_OF_STEPS}.csv") if path else None):
            count, held = parse_figure(row.get("applications")), parse_figure(row.get("bytes"))
            name = row.get("part", "")
            if count is not None and count >= 1 and name in PARTS and held is not None:
                by_count.setdefault(int(count), {}).setdefault(name, []).append(held / int(count))
    return tuple(
        PartsOfStep(count, {name: estimate_median(parts[name]) for name in PARTS if name in parts})
        for count, parts in sorted(by_count.items())
    )
