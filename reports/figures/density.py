"""Density: what was seen at each step of the ramps, and memory against the number of copies."""

from __future__ import annotations

from reports.figures.chart import Chart, Point, Series, draw_chart
from reports.figures.marks import Look, Picture, assign_looks
from reports.figures.scales import choose_scale
from reports.figures.steps import COPIES, Axis, Ramps, draw_steps, lay_axis
from reports.quantities import MEBIBYTE, RULERS, Quantity
from reports.thinning import pick_evenly
from testbed.analysis import Run, list_compared
from testbed.ramps import estimate_memory_of_copies, select_ramps, taken_bytes

_MOST_RAMPS = 8


def draw_density(run: Run) -> list[Picture]:
    """Draw what was seen at each step while the number of copies grew, and memory by each ruler."""
    compared = list_compared(run, "density")
    by_platform = {one.name: [ramp for ramp in select_ramps(run, one.name) if ramp.points] for one in compared}
    by_platform = {name: of for name, of in by_platform.items() if of}
    if not by_platform:
        return []
    axis = lay_axis(by_platform)
    pictures = [
        _memory(run, by_platform, axis, ruler, quantity)
        for ruler, quantity in RULERS.items()
        if any(estimate_memory_of_copies(run, name, ruler) for name in by_platform)
    ]
    return [*draw_steps(run, by_platform, axis), *pictures]


def _memory(run: Run, by_platform: Ramps, axis: Axis, ruler: str, quantity: Quantity) -> Picture:
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
    chart = Chart(axis.scale, y, COPIES, f"memory taken, {quantity.title} (MiB)", series, x_ticks=axis.labels)
    alt = f"Memory taken against the number of copies of the application, {quantity.title}: {'; '.join(described)}."
    caption = "Each mark is a step of a ramp; the line is the first copy, then the mean of what each further one adds."
    return Picture(draw_chart(chart), f"Memory of copies: {quantity.title}", alt, caption)


def _estimate_line(look: Look, quantity: Quantity, first: float, further: object, last: float) -> Series:
    each = float(getattr(further, "value", 0.0))
    start = Point(1, first * MEBIBYTE)
    label = f"{look.label}: {quantity.show(each)} each" if further else f"{look.label}: {quantity.show(first)}"
    end = Point(max(last, 1.0), (first + each * (max(last, 1.0) - 1)) * MEBIBYTE)
    return Series(label, look, [Point(0, 0), start, end] if further else [Point(0, 0), start])
