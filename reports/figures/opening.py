"""Draws the picture that a report opens with (reports.overview)."""

from __future__ import annotations

from markupsafe import Markup

from reports.figures.marks import Look, Picture, assign_looks, join, marker, segment
from reports.figures.matrix import Cell, Column, Matrix, Row, draw_matrix
from reports.figures.scales import Scale, choose_scale
from reports.overview import Figure, Measure, Overview, explain_signs, show_ratio, show_ratio_span
from testbed.analysis import Run

_STRIP_PX, _ROOMY_STRIP_PX = 18, 26
_EXPLAINED = " A/A: what one platform measured twice differed by from itself; no smaller difference says anything."
# With more rows than these, intervals are left to the marks and the tables, so that the first screen has them all.
_ROOMY_ROWS = 6


def draw_opening(run: Run, overview: Overview) -> Picture | None:
    """Draw it; None for a run without figures."""
    if not overview.measures:
        return None
    looks = assign_looks(run)
    several = len(overview.groups) > 1
    rows: list[Row] = []
    names: dict[int, str] = {}
    for group in overview.groups:
        if several:
            rows.append(Row(_head_of(group.temperature), heading=True))
        for one in group.platforms:
            names[len(rows)] = one.name
            rows.append(Row(one.label, looks[one.name], note="emulated" * (one.emulated and "emul" not in one.label)))
    roomy = len(rows) <= _ROOMY_ROWS
    strip_px = _ROOMY_STRIP_PX if roomy else _STRIP_PX
    columns, cells = [], {}
    for at, measure in enumerate(overview.measures):
        scale = _scale(measure)
        columns.append(Column(measure.head, _note(measure), scale, ticks=4))
        for row, name in names.items():
            cells[row, at] = _cell(measure, name, looks[name], scale, _base(overview, measure, name), roomy, strip_px)
    alt = " ".join(_describe(run, measure) for measure in overview.measures)
    caption = (
        "Dot: median (of memory the mean of what further copies add); line: its 95 % interval, or the range of fewer"
        " than six trials. \N{MULTIPLICATION SIGN}: times the baseline, the vertical line. Each column has one axis;"
        f" those whose values differ most are logarithmic.{explain_signs(overview)}"
        f"{_EXPLAINED if any(one.floor is not None for one in overview.measures) else ''}"
    )
    markup = draw_matrix(Matrix(columns, rows, cells, strip_px, class_="opening"))
    return Picture(markup, "", alt, caption, wide=True)


def _note(measure: Measure) -> str:
    """Return what stands below a column's head: what was measured, and the noise floor of every difference in it."""
    if measure.floor is None:
        return measure.note
    return f"{measure.note}; A/A ±{measure.floor:.1%}".replace("%", " %")


def _head_of(temperature: str) -> str:
    return {
        "cold": "Cold: started from nothing",
        "pooled": "Pooled: all but the last step done beforehand",
        "restored": "Restored from saved state",
    }[temperature]


def _scale(measure: Measure) -> Scale:
    factor = measure.quantity.scale
    values = [edge * factor for one in measure.figures.values() for edge in _edges(one)]
    return choose_scale(values, "linear" if measure.name in ("copies", "servers") else None)


def _edges(figure: Figure) -> tuple[float, ...]:
    estimate = figure.estimate
    low, high = (estimate.value if edge is None else edge for edge in (estimate.low, estimate.high))
    return low, estimate.value, high


def _base(overview: Overview, measure: Measure, name: str) -> float | None:
    """Return the value of a platform's baseline, in the axis' unit; None where it is not compared with it."""
    for group in overview.groups:
        if group.baseline and len(group.platforms) > 1 and any(one.name == name for one in group.platforms):
            base = measure.figures.get(group.baseline.name)
            own = measure.figures.get(name)
            if base and own and (own.ratio is not None or own.is_baseline):
                return base.estimate.value * measure.quantity.scale
    return None


def _cell(
    measure: Measure, name: str, look: Look, scale: Scale, base: float | None, roomy: bool, strip_px: float
) -> Cell:
    if (figure := measure.figures.get(name)) is None:
        return Cell(text="–", aside=measure.absent.get(name, ""), quiet=True)
    factor = measure.quantity.scale
    low, middle, high = (scale.place(edge * factor) for edge in _edges(figure))
    marks = join(_interval(low, high, look, strip_px / 2), marker(look, middle, strip_px / 2))
    aside = "baseline" if figure.is_baseline else show_ratio(figure) or figure.note
    note = ""
    if roomy:
        note = "; ".join(filter(None, (figure.span, show_ratio_span(figure))))
    return Cell(
        marks, figure.text, aside, note, None if base is None else scale.place(base), quiet=figure.ratio is None
    )


def _interval(low: float, high: float, look: Look, y: float) -> Markup:
    return segment(low, y, high, y, f"interval {look.classes}") if high > low else Markup("")


def _describe(run: Run, measure: Measure) -> str:
    labels = {one.name: one.label for one in run.platforms}
    shown = [
        f"{labels[name]} {figure.text}" + (f", {show_ratio(figure)} the baseline" if figure.ratio is not None else "")
        for name, figure in measure.figures.items()
    ]
    return f"{measure.head} {measure.note}: {'; '.join(shown)}."
