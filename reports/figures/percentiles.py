"""Latency by percentile: the whole distribution of requests, its far end drawn out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from reports.conditions import unit_of_time
from reports.figures.chart import Chart, Point, Series, draw_chart
from reports.figures.marks import Picture, assign_looks
from reports.figures.scales import Scale, choose_scale
from reports.overview import select_rate
from reports.thinning import pick_evenly
from runtime.errors import UsageError
from testbed.analysis import Run, estimate_utilisation, get_offered_rate, list_compared, select_trials
from testbed.histograms import LEAST_BEYOND
from testbed.results import Trial
from testbed.statistics import Estimate

_PERCENTILE = re.compile(r"latency_p(\d{1,3}(?:_\d{1,4})?)")
_TICKS = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999)
# Histograms of so many trials are merged at most, evenly over the run, and the curve is drawn in so many steps a nine.
_MOST_HISTOGRAMS, _STEPS_A_NINE = 60, 12


def place_percentile(percentile: float) -> float:
    """Return where a percentile (0 to 100) stands: each further nine takes the same room."""
    return -math.log10(max(1.0 - percentile / 100, 1e-9))


def draw_percentiles(run: Run) -> list[Picture]:
    """Draw latency by percentile at the highest rate that all kept up with; none where there is no such rate."""
    rate = select_rate(run)
    if rate is None:
        return []
    looks, series, described = assign_looks(run), [], []
    for one in list_compared(run, "utilisation"):
        points = read_percentiles(run, one.name, rate)
        if points:
            series.append(Series(looks[one.name].label, looks[one.name], points))
            described.append(f"{one.label} {points[-1].y:.3g} ms at the last")
    if not series or max(len(one.points) for one in series) < 2:
        return []
    furthest = max(point.x for one in series for point in one.points)
    x = Scale("linear", 0.0, max(furthest, place_percentile(99.0)) * 1.03)
    y = choose_scale([point.y for one in series for point in one.points])
    ticks = [(place_percentile(at), f"{at:g}") for at in _TICKS if place_percentile(at) <= x.high]
    unit = unit_of_time(run, "ms")
    log = ", log scale" if y.kind == "log" else ""
    chart = Chart(x, y, "percentile of requests", f"latency in {unit}{log}", series, x_ticks=ticks)
    alt = f"Latency by percentile at {rate:g} requests/s: {'; '.join(described)}."
    caption = (
        f"At {rate:g} requests/s: of all requests of the trials together where their histograms are kept, otherwise the"
        f" medians over trials of a few percentiles. No percentile is drawn that fewer than {LEAST_BEYOND} requests lie"
        " beyond; each further nine takes the same room."
    )
    return [Picture(draw_chart(chart), "Latency by percentile", alt, caption)]


def read_percentiles(run: Run, platform: str, rate: float) -> Sequence[Point]:
    """Return latency in ms by percentile, of all trials' histograms at a rate; of metrics where one is missing."""
    trials = [one for one in select_trials(run, "utilisation", platform) if get_offered_rate(one) == rate]
    counted = [_read(run, trial) for trial in pick_evenly(trials, _MOST_HISTOGRAMS)]
    if not counted or any(one is None for one in counted):
        return find_percentiles(estimate_utilisation(run, platform).get(rate, {}))
    merged, *others = counted
    for other in others:
        merged.add(other)
    requests = merged.get_total_count()
    nines = place_percentile(100 * (1 - LEAST_BEYOND / requests)) if requests > LEAST_BEYOND else 0.0
    steps = [at / _STEPS_A_NINE for at in range(math.floor(nines * _STEPS_A_NINE) + 1)]
    return [Point(at, merged.get_value_at_percentile(100 * (1 - 10**-at)) / 1e3) for at in steps]


def _read(run: Run, trial: Trial) -> Any:
    """Return a trial's histogram of microseconds; None where there is none, or it is damaged."""
    try:
        return run.folder.read_histogram(trial)
    except UsageError:
        return None


def find_percentiles(figures: Mapping[str, Estimate]) -> Sequence[Point]:
    """Return the percentiles among a rate's metrics, named ``latency_p50`` or ``latency_p99_9``, in ms."""
    points = []
    for name, estimate in figures.items():
        found = _PERCENTILE.fullmatch(name)
        if found and (percentile := float(found[1].replace("_", "."))) < 100:
            low, high = estimate.low * 1e3, estimate.high * 1e3
            points.append(Point(place_percentile(percentile), estimate.value * 1e3, low, high))
    return sorted(points, key=lambda point: point.x)
