"""Under load: latency, processor time, memory and the host's utilisation against the offered rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reports.conditions import unit_of_time
from reports.figures.chart import Chart, Point, Series, draw_chart
from reports.figures.marks import Picture, assign_looks
from reports.figures.scales import Scale, choose_scale
from reports.quantities import LOAD
from reports.thinning import pick_evenly
from testbed.analysis import Run, estimate_utilisation, list_compared
from testbed.statistics import Estimate

_MOST_RATES = 40
ByRate = Mapping[float, Mapping[str, Estimate]]


def draw_load(run: Run) -> list[Picture]:
    """Draw the four charts; none without a trial under load."""
    by_platform = {one.name: estimate_utilisation(run, one.name) for one in list_compared(run, "utilisation")}
    by_platform = {name: rates for name, rates in by_platform.items() if rates}
    if not by_platform:
        return []
    ms = unit_of_time(run, "ms")
    return [
        _against_rate(run, by_platform, ("cpu_per_request",), "Processor time of a request", ms),
        _against_rate(run, by_platform, ("latency_p99", "latency_p50"), "Latency", f"p99, and faint p50, in {ms}"),
        _against_rate(run, by_platform, ("memory_cgroup",), "Memory under load", "cgroup charge, MiB"),
        _against_rate(run, by_platform, ("host_utilisation",), "Host utilisation", "busy part of all processors, %"),
    ]


def _against_rate(
    run: Run, by_platform: Mapping[str, ByRate], metrics: Sequence[str], title: str, unit: str
) -> Picture:
    looks, series, described = assign_looks(run), [], []
    for name, rates in by_platform.items():
        for at, metric in enumerate(metrics):
            factor = LOAD[metric].scale
            points = [
                Point(rate, of[metric].value * factor, of[metric].low * factor, of[metric].high * factor)
                for rate, of in rates.items()
                if metric in of
            ]
            if points:
                label = looks[name].label if at == 0 else ""
                series.append(Series(label, looks[name], pick_evenly(points, _MOST_RATES), faint=at > 0))
                shown = LOAD[metric].show(points[-1].y / factor)
                described.append(f"{looks[name].label} {LOAD[metric].title} {shown}")
    x = Scale("linear", 0.0, max((rate for rates in by_platform.values() for rate in rates), default=1.0) * 1.02)
    values = [edge for one in series for point in one.points for edge in (point.low, point.y, point.high)]
    y = choose_scale([value for value in values if value is not None])
    log = ", log scale" if y.kind == "log" else ""
    chart = Chart(x, y, "requests offered per second", f"{unit}{log}", series)
    alt = f"{title} against the offered rate; at the highest rate: {'; '.join(described) or 'nothing'}."
    caption = "Medians; lines at the marks are 95 % intervals, or the range of fewer than six trials."
    return Picture(draw_chart(chart), title, alt, caption)
