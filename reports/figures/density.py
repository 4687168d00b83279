"""Density: memory against the number of copies, and latency until the service level breaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reports.conditions import unit_of_time
from reports.figures.chart import Chart, Limit, Point, Series, draw_chart
from reports.figures.marks import Look, Picture, assign_looks
from reports.figures.scales import Scale, choose_scale
from reports.quantities import MEBIBYTE, RULERS, Quantity, format_number
from reports.thinning import pick_evenly
from testbed.analysis import (
    Ramp,
    Run,
    estimate_memory_of_copies,
    get_mapping,
    list_compared,
    select_ramps,
    taken_bytes,
)

# A service level beyond a day is a slip, and would squeeze all else into a line.
_LARGEST_MS = 86_400_000
_MOST_RAMPS, _MOST_STEPS = 8, 60


def draw_density(run: Run) -> list[Picture]:
    """Draw latency while the number of copies grew, and memory by each ruler."""
    compared = list_compared(run, "density")
    by_platform = {one.name: [ramp for ramp in select_ramps(run, one.name) if ramp.points] for one in compared}
    by_platform = {name: of for name, of in by_platform.items() if of}
    if not by_platform:
        return []
    pictures = [_memory(run, by_platform, ruler, quantity) for ruler, quantity in RULERS.items()]
    return [_latency(run, by_platform), *_starts(run, by_platform), *pictures]


def find_knee(points: Sequence[Point], copies: int) -> tuple[Point | None, Point | None]:
    """Return the last step at which the service level held, and the first one beyond it."""
    held = [point for point in points if point.x <= copies]
    broke = [point for point in points if point.x > copies]
    return held[-1] if held else None, broke[0] if broke else None


def _latency(run: Run, by_platform: Mapping[str, Sequence[Ramp]]) -> Picture:
    looks, series, described = assign_looks(run), [], []
    limit = get_mapping(get_mapping(run.manifest.get("settings")).get("slo")).get("p99_ms")
    for name, of in by_platform.items():
        for at, ramp in enumerate(pick_evenly(of, _MOST_RAMPS)):
            points = _steps(ramp, "p99_ms")
            if not points:
                continue
            held, broke = find_knee(points, ramp.applications)
            label = f"{looks[name].label}: {ramp.applications}" if at == 0 else ""
            shown = pick_evenly(points, _MOST_STEPS)
            marks = (held, broke) if at == 0 else (None, None)
            series.append(Series(label, looks[name], shown, at > 0, True, *marks))
            described.append(
                f"{looks[name].label} held it with {ramp.applications} copies ({ramp.reason or 'no reason given'}), at"
                f" {format_number(points[-1].y)} ms with {points[-1].x:g}"
            )
    limits = []
    if isinstance(limit, int | float) and not isinstance(limit, bool) and 0 < limit < _LARGEST_MS:
        limits.append(Limit(float(limit), f"service level {limit:g} ms"))
    values = [point.y for one in series for point in one.points] + [one.y for one in limits]
    y = choose_scale(values, "log")
    unit = f"latency p99 ({unit_of_time(run, 'ms')}, log scale)"
    x, ticks = _copies_scale(by_platform), _whole_ticks(by_platform)
    chart = Chart(x, y, "copies of the application running", unit, series, limits, x_ticks=ticks)
    alt = f"99th percentile of latency against the number of copies: {'; '.join(described)}."
    caption = (
        "Latency over all copies at each step. Ring: the most copies that held the service level (dashed line); cross:"
        f" the step that broke it. Faint: further ramps, of each platform {_MOST_RAMPS} ramps at most."
    )
    return Picture(draw_chart(chart), "How many copies hold the service level", alt, caption)


def _starts(run: Run, by_platform: Mapping[str, Sequence[Ramp]]) -> list[Picture]:
    """Draw how long a copy takes to its first answer beside those that run already; older runs have not recorded it."""
    looks, described = assign_looks(run), []
    series = []
    for name, of in by_platform.items():
        for at, ramp in enumerate(pick_evenly(of, _MOST_RAMPS)):
            if points := [Point(point.x - 1, point.y) for point in _steps(ramp, "start_s")]:
                label = looks[name].label if at == 0 else ""
                series.append(Series(label, looks[name], pick_evenly(points, _MOST_STEPS), faint=at > 0))
                described.append(f"{looks[name].label} {points[0].y:.3g} s alone, {points[-1].y:.3g} s at the last")
    if not series:
        return []
    y = choose_scale([point.y for one in series for point in one.points])
    unit = f"{unit_of_time(run, 'seconds')} to the first answer{', log scale' if y.kind == 'log' else ''}"
    ticks = _whole_ticks(by_platform)
    chart = Chart(_copies_scale(by_platform), y, "copies that run already", unit, series, x_ticks=ticks)
    alt = f"Time to the first answer against the copies that run already: {'; '.join(described)}."
    return [Picture(draw_chart(chart), "Starting beside others", alt, "Each mark is the newest copy of a ramp.")]


def _steps(ramp: Ramp, column: str) -> list[Point]:
    pairs = zip(ramp.points.get("applications", ()), ramp.points.get(column, ()), strict=False)
    return [Point(count, value) for count, value in pairs if count > 0 and value > 0]


def _copies_scale(by_platform: Mapping[str, Sequence[Ramp]]) -> Scale:
    most = max((max(ramp.points.get("applications", (0,))) for of in by_platform.values() for ramp in of), default=1)
    return Scale("linear", 0.0, max(most, 1.0) * 1.02)


def _whole_ticks(by_platform: Mapping[str, Sequence[Ramp]]) -> list[tuple[float, str]]:
    most = int(_copies_scale(by_platform).high)
    step = max(1, round(most / 8))
    return [(float(count), str(count)) for count in range(0, most + 1, step)][:12]


def _memory(run: Run, by_platform: Mapping[str, Sequence[Ramp]], ruler: str, quantity: Quantity) -> Picture:
    """Draw the steps of the ramps, and the published estimate: the first copy, then so much for each further one."""
    looks, series, described = assign_looks(run), list[Series](), []
    for name, of in by_platform.items():
        look, memory = looks[name], estimate_memory_of_copies(run, name, ruler)
        if memory is None:
            continue
        series += [
            Series(
                "", look, [Point(n, size * MEBIBYTE) for n, size in pick_evenly(taken_bytes(ramp.points, ruler), 40)],
                line=False,
            )
            for ramp in pick_evenly(of, _MOST_RAMPS)
        ]  # fmt: skip
        last = max(one.points[-1].x for one in series if one.look == look and one.points)
        series.append(_estimate_line(look, quantity, memory.first.value, memory.further, last))
        described.append(f"{look.label} {quantity.show(memory.first.value)} for the first copy")
        described += [f"{quantity.show(memory.further.value)} for each further one"] if memory.further else []
    y = choose_scale([point.y for one in series for point in one.points], "linear")
    chart = Chart(
        _copies_scale(by_platform), y, "copies of the application running", f"memory taken, {quantity.title} (MiB)",
        series, (), (), _whole_ticks(by_platform),
    )  # fmt: skip
    alt = f"Memory taken against the number of copies of the application, {quantity.title}: {'; '.join(described)}."
    caption = "Each mark is a step of a ramp; the line is the first copy, then the mean of what each further one adds."
    return Picture(draw_chart(chart), f"Memory of copies: {quantity.title}", alt, caption)


def _estimate_line(look: Look, quantity: Quantity, first: float, further: object, last: float) -> Series:
    each = float(getattr(further, "value", 0.0))
    start = Point(1, first * MEBIBYTE)
    label = f"{look.label}: {quantity.show(each)} each" if further else f"{look.label}: {quantity.show(first)}"
    end = Point(max(last, 1.0), (first + each * (max(last, 1.0) - 1)) * MEBIBYTE)
    return Series(label, look, [Point(0, 0), start, end] if further else [Point(0, 0), start])
