"""Consolidation: servers a platform holds and what they make of the host, and latency and use on the way there."""

from __future__ import annotations

from collections.abc import Sequence

from reports.conditions import unit_of_time
from reports.consolidation import AFTER, FIGURES, OVERHEAD, shorten_end, show_servers
from reports.figures.chart import Chart, Limit, Point, Series, draw_chart
from reports.figures.marks import Look, Picture, assign_looks, join, marker, segment
from reports.figures.matrix import Cell, Column, Matrix, Row, draw_matrix
from reports.figures.scales import Scale, choose_scale
from reports.quantities import Quantity, format_number
from reports.thinning import pick_evenly
from testbed.analysis import Platform, Run, get_mapping, list_compared
from testbed.consolidations import MEASURE, Mix, Packed, Step, list_mixes, read_steps
from testbed.statistics import Estimate

_STRIP_PX = 22
# Mixes whose ramps are drawn, ramps of each platform, and steps of each.
_MOST_MIXES, _MOST_RAMPS, _MOST_STEPS = 6, 6, 60
# A service level beyond a day is a slip, and would squeeze all else into a line.
_LARGEST_MS = 86_400_000


def draw_consolidation(run: Run) -> list[Picture]:
    """Draw before and after, then each mix's ramps. None of a run that has no servers."""
    mixes = list_mixes(run)
    if not mixes:
        return []
    return [_draw_answer(run, mixes), *(one for mix in mixes[:_MOST_MIXES] for one in _draw_ramps(run, mix))]


def _draw_answer(run: Run, mixes: Sequence[Mix]) -> Picture:
    """Draw a row for each mix and platform, with the servers that a host holds and its use by them."""
    looks = assign_looks(run)
    rows: list[Row] = []
    packed: dict[int, Packed] = {}
    for mix in mixes:
        zombies = f", {mix.zombies * 100:.3g} % of them idle" if mix.zombies else ""
        rows.append(Row(f"Servers at {mix.fraction * 100:.3g} % of a machine{zombies}", heading=True))
        for one in mix.packed:
            packed[len(rows)] = one
            rows.append(Row(looks[one.platform].label, looks[one.platform]))
    shown = [
        ("servers", "Servers on this host", "within the SLO, packed by use; more is better"),
        ("utilisation_after", "Use of the host", "by all of them; the line is a server's machine before"),
        ("packed_memory", "Memory of a server", "cgroup charge, beside all the others; less is better"),
        ("overhead", "Processor time", "of a server alone, times the calibrated platform's; less is better"),
    ]
    columns, cells, described = [], {}, []
    having = [one for one in shown if any(_find(of, one[0]) is not None for of in packed.values())]
    for at, (name, head, note) in enumerate(having):
        quantity = OVERHEAD if name == "overhead" else FIGURES[name]
        found = {row: estimate for row, one in packed.items() if (estimate := _find(one, name)) is not None}
        earlier = {row: one.figures.get("utilisation_before") for row, one in packed.items()}
        values = [edge * quantity.scale for one in found.values() for edge in (one.low, one.value, one.high)]
        scale = Scale("linear", 0.0, max([*values, 1.0 if name == "servers" else 0.0]) * 1.05 or 1.0)
        columns.append(Column(head, note, scale, ticks=4))
        for row, estimate in found.items():
            one, before = packed[row], earlier[row]
            base = None if name != "utilisation_after" or before is None else scale.place(before.value * quantity.scale)
            text = show_servers(one) if name == "servers" else quantity.show(estimate.value)
            aside = shorten_end(one) if name == "servers" else ""
            cells[row, at] = _cell(quantity, estimate, looks[one.platform], scale, text, aside, base)
            described.append(f"{head}, {looks[one.platform].label} {text}")
    markup = draw_matrix(Matrix(columns, rows, cells, _STRIP_PX))
    caption = (
        "Dot: median over ramps; line: its 95 % interval, or the range of fewer than six ramps. Vertical line: what the"
        " server used of a machine of its own."
    )
    return Picture(markup, "Before and after", f"Consolidation. {'; '.join(described)}.", caption, wide=True)


def _find(packed: Packed, name: str) -> Estimate | None:
    return packed.overhead if name == "overhead" else packed.figures.get(name)


def _cell(
    quantity: Quantity, estimate: Estimate, look: Look, scale: Scale, text: str, aside: str, base: float | None
) -> Cell:
    low, middle, high = (scale.place(edge * quantity.scale) for edge in (estimate.low, estimate.value, estimate.high))
    line = [segment(low, _STRIP_PX / 2, high, _STRIP_PX / 2, f"interval {look.classes}")] if high > low else []
    marks = join(*line, marker(look, middle, _STRIP_PX / 2))
    return Cell(marks, text, aside, quantity.qualify(estimate), base, quiet=True)


def _draw_ramps(run: Run, mix: Mix) -> list[Picture]:
    """Draw latency and the host's use against the number of servers, of what may be compared."""
    by_platform = {one: ramps for one in list_compared(run, MEASURE) if (ramps := read_steps(run, one, mix.name))}
    if not by_platform:
        return []
    most = max(step.servers for ramps in by_platform.values() for ramp in ramps for step in ramp)
    x = Scale("linear", 0.0, most * 1.02)
    stride = max(1, round(most / 8))
    ticks = [(float(count), str(count)) for count in range(0, int(most) + 1, stride)][:12]
    return [_draw_latency(run, mix, by_platform, x, ticks), _draw_use(run, mix, by_platform, x, ticks)]


Ramps = dict[Platform, tuple[tuple[Step, ...], ...]]
Ticks = Sequence[tuple[float, str]]


def _draw_latency(run: Run, mix: Mix, by_platform: Ramps, x: Scale, ticks: Ticks) -> Picture:
    looks, series, described = assign_looks(run), [], []
    held = {one.platform: one.figures["servers"].value for one in mix.packed if "servers" in one.figures}
    for platform, ramps in by_platform.items():
        look = looks[platform.name]
        for at, ramp in enumerate(pick_evenly(ramps, _MOST_RAMPS)):
            points = [Point(step.servers, step.p99_ms) for step in ramp if step.p99_ms > 0]
            if points:
                label = f"{look.label}: {held.get(platform.name, 0):g}" if at == 0 else ""
                series.append(Series(label, look, pick_evenly(points, _MOST_STEPS), faint=at > 0))
                described.append(f"{look.label} {format_number(points[-1].y)} ms with {points[-1].x:g}")
    limit = get_mapping(get_mapping(run.manifest.get("settings")).get("slo")).get("p99_ms")
    is_limit = isinstance(limit, int | float) and not isinstance(limit, bool) and 0 < limit < _LARGEST_MS
    limits = [Limit(float(limit), f"service level {limit:g} ms")] if is_limit and limit is not None else []
    y = choose_scale([point.y for one in series for point in one.points] + [one.y for one in limits], "log")
    unit = f"latency p99 ({unit_of_time(run, 'ms')}, log scale)"
    chart = Chart(x, y, "servers on this host", unit, series, limits, x_ticks=ticks)
    alt = f"99th percentile of latency against the number of servers at {mix.name}: {'; '.join(described)}."
    caption = (
        "Latency over all servers that have a load. Behind a label is the median number that held the level. Faint:"
        " further ramps."
    )
    return Picture(draw_chart(chart), f"Latency on the way: {mix.name}", alt, caption)


def _draw_use(run: Run, mix: Mix, by_platform: Ramps, x: Scale, ticks: Ticks) -> Picture:
    looks, series, described = assign_looks(run), [], []
    for platform, ramps in by_platform.items():
        look = looks[platform.name]
        for at, ramp in enumerate(pick_evenly(ramps, _MOST_RAMPS)):
            points = [Point(step.servers, step.used * AFTER.scale) for step in ramp]
            label = look.label if at == 0 else ""
            series.append(Series(label, look, pick_evenly(points, _MOST_STEPS), faint=at > 0))
            described.append(f"{look.label} {format_number(points[-1].y)} % with {points[-1].x:g}")
    before = Limit(mix.fraction * AFTER.scale, f"before: {mix.fraction * 100:.3g} %")
    y = Scale("linear", 0.0, 100.0)
    chart = Chart(x, y, "servers on this host", "this host's use by them (%)", series, [before], x_ticks=ticks)
    alt = f"Use of this host against the number of servers at {mix.name}: {'; '.join(described)}."
    caption = "Processor time of all servers, as a part of all processors of this host; the generator's is not in it."
    return Picture(draw_chart(chart), f"Use of the host: {mix.name}", alt, caption)
