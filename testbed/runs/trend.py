"""Finds which run of a series changed which figure. A change is one that two detectors find independently.

Apache Otava splits a series where the energy distance between its parts is greatest and keeps what Student's t confirms
(Fleming and others, Hunter: Using Change Point Detection to Hunt for Performance Regressions, ICPE 2023, after Matteson
and James, A Nonparametric Approach for Multiple Change Point Analysis of Multivariate Data, 2014). PELT finds the
segmentation of least squares with a penalty a change (Killick, Fearnhead and Eckley, Optimal Detection of Changepoints
with a Linear Computational Cost, 2012). They fail in different ways: the first on outliers, the second on drift.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import MappingProxyType

from msgspec import Struct

from runtime.errors import PrerequisiteError, TestbedError
from testbed.aliases import is_alias
from testbed.analysis import Run
from testbed.runs.figures import Figure
from testbed.runs.fingerprint import list_differences, list_doubts, list_obstacles, read_commit
from testbed.runs.sides import Measured, list_folders, measure
from testbed.runs.verdict import find_typical

# With fewer runs no detector can tell a change from chance.
FEWEST_RUNS = 8
# How far apart, in runs, two detectors may see the same change.
_APART = 1
# Stricter than its default of 0.001: a trend looks at dozens of series, night after night.
_P_VALUE = 0.0001
_WINDOW = 50
# A change costs so many times the logarithm of the number of runs, in variances of the noise; three would be the least
# (Zhang and Siegmund, A Modified Bayes Information Criterion, 2007), and is fooled more often by how these are
# estimated.
_PENALTY = 5.0
_LEAST_SEGMENT = 2

Detector = Callable[[Sequence[float]], list[int]]


class Shift(Struct, frozen=True):
    """A change in a series: from which run on, the medians of the runs before and after it up to the next changes, and
    the relative change, None where there is no ratio."""

    index: int
    before: float
    after: float

    @property
    def change(self) -> float | None:
        return self.after / self.before - 1 if self.before > 0 else None


class Series(Struct, frozen=True):
    """A figure over runs: their numbers in the trend's list of runs, their values, and where they changed."""

    figure: Figure
    runs: tuple[int, ...]
    values: tuple[float, ...]
    shifts: tuple[Shift, ...]


class Point(Struct, frozen=True):
    """A run of a trend."""

    run: str
    commit: str
    started: str


class Trend(Struct, frozen=True):
    """The runs of one experiment on one host, in the order of time, and their figures. ``too_few``: nothing can be said
    of changes. ``exact``: every difference is a change, as they are of the reference machine."""

    scenario: str
    exact: bool
    points: tuple[Point, ...]
    series: tuple[Series, ...]
    too_few: bool


class Trends(Struct, frozen=True):
    """All trends of a folder, the longest first, and why folders in it were left out."""

    trends: tuple[Trend, ...]
    left_out: tuple[str, ...]


def read_trends(folder: Path) -> Trends:
    """Read all runs in a folder, and find the changes of their figures. Damaged runs are left out, and said to be.

    Raises UsageError when the folder cannot be read.
    """
    runs: list[Measured] = []
    left_out: list[str] = []
    for path in list_folders(folder):
        try:
            runs.append(_without_trials(measure(path)))
        except TestbedError as error:
            left_out.append(error.message)
    return Trends(find_trends(runs), tuple(left_out))


def _without_trials(one: Measured) -> Measured:
    """Return a run with its figures alone: a thousand runs with all of their trials take gigabytes."""
    beside = tuple(trial for trial in one.run.trials if trial.beside)[:1]  # part of what it was made of
    return Measured(Run(one.run.folder, one.run.manifest, beside, one.run.platforms), one.figures)


def find_trends(runs: Sequence[Measured]) -> tuple[Trend, ...]:
    """Return a trend for each experiment and host, the one with the most runs first."""
    groups: list[list[Measured]] = []
    for one in sorted(runs, key=lambda one: (_read_time(one), one.run_id)):
        for group in groups:
            differences = list_differences(group[0].run, one.run)
            if not list_obstacles(differences) and not list_doubts(differences):
                group.append(one)
                break
        else:
            groups.append([one])
    return tuple(_make_trend(group) for group in sorted(groups, key=len, reverse=True))


def _read_time(one: Measured) -> float:
    """Return when a run began, in seconds since 1970; 0 where its manifest does not say."""
    try:
        began = datetime.fromisoformat(str(one.run.manifest.get("started")))
        return began.replace(tzinfo=began.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _make_trend(group: Sequence[Measured]) -> Trend:
    exact = group[0].run.instruction_time
    too_few = not exact and len(group) < FEWEST_RUNS
    figures = dict.fromkeys(figure for one in group for figure in one.figures if not is_alias(figure.platform))
    series = []
    for figure in figures:
        pairs = [(n, find_typical(one.figures[figure])) for n, one in enumerate(group) if figure in one.figures]
        numbers, values = zip(*pairs, strict=True)
        shifts = find_every_change(values) if exact else () if too_few else find_shifts(values)
        series.append(Series(figure, numbers, values, shifts))
    points = (Point(one.run_id, read_commit(one.run), str(one.run.manifest.get("started"))[:32]) for one in group)
    return Trend(group[0].run.folder.scenario, exact, tuple(points), tuple(series), too_few)


def find_every_change(values: Sequence[float]) -> tuple[Shift, ...]:
    """Return a shift wherever a value is not the one before."""
    return tuple(Shift(at, one, other) for at, (one, other) in enumerate(pairwise(values), 1) if one != other)


def find_shifts(values: Sequence[float]) -> tuple[Shift, ...]:
    """Return the changes that all detectors see; none of fewer than FEWEST_RUNS values."""
    if len(values) < FEWEST_RUNS or len(set(values)) == 1:
        return ()
    detectors = iter(DETECTORS.values())
    agreed = next(detectors)(values)
    for detect in detectors:
        if agreed:  # else none can be agreed on
            seen = detect(values)
            agreed = [at for at in agreed if any(abs(at - other) <= _APART for other in seen)]
    ends = [0, *agreed, len(values)]
    parts = [values[begin:end] for begin, end in pairwise(ends)]
    return tuple(
        Shift(at, median(before), median(after))
        for at, (before, after) in zip(agreed, pairwise(parts), strict=True)
        if median(before) != median(after)
    )


def detect_by_otava(values: Sequence[float]) -> list[int]:
    """Return the numbers of the values from which on Apache Otava sees a change."""
    try:
        import numpy as np
        from otava.analysis import compute_change_points
    except ImportError as error:
        raise PrerequisiteError("trend needs apache-otava, which is not installed", "run it by ./invoke") from error
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of variances that are 0
        # A list: of an array, version 0.8.0 looks at the whole in each of its windows.
        points, _ = compute_change_points(list(map(float, values)), window_len=_WINDOW, max_pvalue=_P_VALUE)
    return sorted(int(point.index) for point in points)


def detect_by_pelt(values: Sequence[float]) -> list[int]:
    """Return the numbers of the values from which on PELT sees a change of the mean.

    The noise is that of the differences of neighbours, by their median, which a change or an outlier leaves alone.
    """
    try:
        import numpy as np
        import ruptures
    except ImportError as error:
        raise PrerequisiteError("trend needs ruptures, which is not installed", "run it by ./invoke") from error
    noise = median(abs(after - before) for before, after in pairwise(values)) / (0.6745 * math.sqrt(2))
    floor = max(map(abs, values)) * 1e-9 or 1.0
    signal = (np.asarray(values, dtype=float) - median(values)) / max(noise, floor)
    found = ruptures.Pelt(model="l2", min_size=_LEAST_SEGMENT, jump=1).fit(signal)
    return [int(end) for end in found.predict(pen=_PENALTY * math.log(len(values)))[:-1]]


DETECTORS: Mapping[str, Detector] = MappingProxyType({"otava": detect_by_otava, "pelt": detect_by_pelt})
