"""What density ramps saw at each step: whether the service level held, latency, and how long the newest copy took."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from statistics import median

from markupsafe import Markup
from msgspec import Struct

from reports.conditions import unit_of_time
from reports.figures.chart import Chart, Limit, Point, Series, draw_chart
from reports.figures.marks import Picture, assign_looks, element, join, number, percent
from reports.figures.matrix import Cell, Column, Matrix, Row, draw_matrix
from reports.figures.scales import Scale, choose_scale
from reports.quantities import format_number
from reports.thinning import pick_evenly
from testbed.analysis import Run, get_mapping
from testbed.ramps import Ramp, Step, list_counts, summarise_steps
from testbed.statistics import FEWEST, Estimate

COPIES = "copies of the application running"
# A service level beyond a day is a slip, and would squeeze all else into a line.
_LARGEST_MS = 86_400_000
_MOST_STEPS = 60
# Ramps of a platform whose verdicts are drawn, and px from one to the next.
_MOST_LANES, _LANE_PX = 6, 11

Ramps = Mapping[str, Sequence[Ramp]]
Steps = Mapping[str, Sequence[Step]]
Traces = Mapping[str, Sequence[Point]]


class Axis(Struct, frozen=True):
    """The axis of copies that all figures of a run's ramps share: from none to the ``most``, with whole numbers."""

    most: int
    scale: Scale
    labels: tuple[tuple[float, str], ...]


def lay_axis(by_platform: Ramps) -> Axis:
    """Return the axis on which all ramps have room."""
    most = max((list_counts(of)[-1] for of in by_platform.values() if list_counts(of)), default=1)
    labels = ((float(count), str(count)) for count in range(0, most + 1, max(1, round(most / 8))))
    return Axis(most, Scale("linear", 0.0, most * 1.02), tuple(labels))


def draw_steps(run: Run, by_platform: Ramps, axis: Axis) -> list[Picture]:
    """Draw verdicts, percentiles of latency and start times, those that the ramps have recorded."""
    steps = {name: summarise_steps(of, _pick_counts(of)) for name, of in by_platform.items()}
    return [
        *_draw_verdicts(run, by_platform, axis),
        *_draw_latency(run, by_platform, steps, axis),
        *_draw_starts(run, steps, axis),
    ]


def _pick_counts(ramps: Sequence[Ramp]) -> list[int]:
    """Return the numbers of copies that are drawn; those on either side of the knee are among them."""
    counts = list_counts(ramps)
    knee = math.floor(median(ramp.applications for ramp in ramps))
    return sorted({*pick_evenly(counts, _MOST_STEPS), *({knee, knee + 1} & set(counts))})


def _draw_verdicts(run: Run, by_platform: Ramps, axis: Axis) -> list[Picture]:
    """Draw a row a platform and in it a line a ramp, with a sign at each step; none for runs that have not judged."""
    looks = assign_looks(run)
    judged = {name: of for name, ramps in by_platform.items() if (of := [one for one in ramps if any(one.verdicts)])}
    if not judged:
        return []
    lanes = {name: pick_evenly(ramps, _MOST_LANES) for name, ramps in judged.items()}
    height_px = _LANE_PX * max(map(len, lanes.values())) + 7
    scale = Scale("linear", 0.5, axis.most + 0.5)
    rows, cells, said = list[Row](), {}, []
    for name, ramps in lanes.items():
        signs = [sign for lane, ramp in enumerate(ramps) for sign in _draw_lane(ramp, scale, _LANE_PX * (lane + 0.8))]
        copies, held = median(one.applications for one in judged[name]), median(one.held or 0 for one in judged[name])
        sure = f"{held:g} for sure" if held else "none for sure"
        cells[len(rows), 0] = Cell(join(*signs), f"{copies:g}", sure)
        rows.append(Row(looks[name].label, looks[name]))
        said.append(f"{looks[name].label}: {copies:g}, {sure}")
    note = f"a line a ramp, at most {_MOST_LANES}" if height_px > _LANE_PX + 7 else "one ramp of each platform"
    column = Column(COPIES.capitalize(), note, scale, labels=[(1.0, "1"), *axis.labels[1:]])
    markup = draw_matrix(Matrix([column], rows, cells, height_px, inline=True, class_="verdicts"))
    caption = (
        "Each sign is a step of a ramp. Filled: it held, the whole interval of the fraction of slow requests"
        " is below 1 %. Hollow: undecided, requests were too few to tell. Cross: it broke, and that ended the ramp."
        " Right: copies within the service level, and with how many it held for sure; medians over ramps."
    )
    alt = f"Verdict of each step. Copies within the service level, and how many for sure: {'; '.join(said)}."
    return [Picture(markup, "How many copies hold the service level", alt, caption, wide=True)]


def _draw_lane(ramp: Ramp, scale: Scale, y: float) -> list[Markup]:
    """Return a ramp's signs; of very many steps those of some, and the last."""
    steps = [
        (count, verdict)
        for count, verdict in zip(ramp.points.get("applications", ()), ramp.verdicts, strict=False)
        if count >= 1 and verdict
    ]
    return [_draw_sign(verdict, scale.place(count), y) for count, verdict in pick_evenly(steps, _MOST_STEPS)]


def _draw_sign(verdict: str, x: float, y: float) -> Markup:
    symbol, class_ = {"held": ("s0", "mark ink"), "undecided": ("s0", "mark ink hollow"), "broke": ("cross", "cross")}[
        verdict
    ]
    return element("use", element("title", verdict), href=f"#{symbol}", x=percent(x), y=number(y), class_=class_)


def _draw_latency(run: Run, by_platform: Ramps, steps: Steps, axis: Axis) -> list[Picture]:
    """Draw the percentiles side by side, with the same axes."""
    tails, halves = (_trace(steps, read) for read in (lambda step: step.p99_ms, lambda step: step.p50_ms))
    limit = get_mapping(get_mapping(run.manifest.get("settings")).get("slo")).get("p99_ms")
    limits = []
    if isinstance(limit, int | float) and not isinstance(limit, bool) and 0 < limit < _LARGEST_MS:
        limits.append(Limit(float(limit), f"service level {limit:g} ms"))
    values = [*_list_edges(tails), *_list_edges(halves)]
    y = choose_scale([*values, *(one.y for one in limits if tails)], "log")
    pictures = []
    if tails:
        caption = (
            f"{_say_basis(steps)} Only where five requests of each ramp lie beyond it. Ring: the most copies that held"
            " the service level (dashed line); cross: the step that broke it."
        )
        lines, said = _draw_tails(run, by_platform, steps, tails)
        alt = f"99th percentile of latency against the number of copies: {'; '.join(said)}."
        chart = Chart(axis.scale, y, COPIES, _say_unit(run, "latency p99"), lines, limits, x_ticks=axis.labels)
        pictures.append(Picture(draw_chart(chart), "Latency p99 beside others", alt, caption))
    if halves:
        alt = f"Median latency against the number of copies: {_say_ends(run, halves, 'ms')}."
        lines = _draw_lines(run, halves)
        chart = Chart(axis.scale, y, COPIES, _say_unit(run, "latency p50"), lines, x_ticks=axis.labels)
        pictures.append(Picture(draw_chart(chart), "Latency p50 beside others", alt, _say_basis(steps)))
    return pictures


def _draw_tails(run: Run, by_platform: Ramps, steps: Steps, tails: Traces) -> tuple[list[Series], list[str]]:
    """Return the lines of p99, with the knee of each, and what they say in words."""
    looks, lines, said = assign_looks(run), [], []
    for name, points in tails.items():
        copies = median(ramp.applications for ramp in by_platform[name])
        broken = {step.applications for step in steps[name] if "broke" in step.verdicts or not step.verdicts}
        held, broke = find_knee(points, copies, broken)
        lines.append(Series(f"{looks[name].label}: {copies:g}", looks[name], points, ring=held, cross=broke))
        reason = by_platform[name][0].reason or "no reason given"
        last = f"{format_number(points[-1].y)} ms with {points[-1].x:g}"
        said.append(f"{looks[name].label} held it with {copies:g} copies ({reason}), at {last}")
    return lines, said


def find_knee(points: Sequence[Point], copies: float, broken: Container[float]) -> tuple[Point | None, Point | None]:
    """Return the step with so many copies, the most that held the service level, and the first one beyond it that is
    one of the ``broken``."""
    held = next((point for point in points if point.x == math.floor(copies)), None)
    return held, next((point for point in points if point.x > copies and point.x in broken), None)


def _draw_starts(run: Run, steps: Steps, axis: Axis) -> list[Picture]:
    """Draw how long a copy takes to its first answer beside those that run already; older runs have not recorded it."""
    if not (traced := _trace(steps, lambda step: step.start_s, before=1)):
        return []
    y = choose_scale(_list_edges(traced))
    unit = f"{unit_of_time(run, 'seconds')} to the first answer{', log scale' if y.kind == 'log' else ''}"
    alt = f"Time to the first answer against the copies that run already: {_say_ends(run, traced, 's')}."
    lines = _draw_lines(run, traced)
    chart = Chart(axis.scale, y, "copies that run already", unit, lines, x_ticks=axis.labels)
    caption = f"The start of the newest copy. {_say_basis(steps)}"
    return [Picture(draw_chart(chart), "Starting beside others", alt, caption)]


def _trace(steps: Steps, read: Callable[[Step], Estimate | None], before: int = 0) -> Traces:
    """Return a figure's medians with their intervals by the number of copies, or of those ``before`` the newest."""
    traced = {
        name: [Point(step.applications - before, one.value, one.low, one.high) for step in of if (one := read(step))]
        for name, of in steps.items()
    }
    return {name: points for name, points in traced.items() if points}


def _list_edges(traced: Traces) -> list[float]:
    """Return all that must have room on an axis: the ends of intervals, too."""
    return [y for points in traced.values() for one in points for y in (one.low, one.y, one.high) if y is not None]


def _draw_lines(run: Run, traced: Traces) -> list[Series]:
    looks = assign_looks(run)
    return [Series(looks[name].label, looks[name], points) for name, points in traced.items()]


def _say_ends(run: Run, traced: Traces, unit: str) -> str:
    """Return each line's first and last value in words."""
    looks = assign_looks(run)
    return "; ".join(
        f"{looks[name].label} {of[0].y:.3g} {unit} with {of[0].x:g}, {of[-1].y:.3g} {unit} with {of[-1].x:g}"
        for name, of in traced.items()
    )


def _say_basis(steps: Steps) -> str:
    """Return what a line through steps rests on."""
    most = max((step.ramps for of in steps.values() for step in of), default=0)
    if most < 2:
        return "One ramp of each platform."
    spans = "95 % intervals, or the range of fewer than six" if most >= FEWEST else "their range"
    return f"Medians over the ramps that came so far (at most {most}); lines: {spans}."


def _say_unit(run: Run, what: str) -> str:
    return f"{what} ({unit_of_time(run, 'ms')}, log scale)"
