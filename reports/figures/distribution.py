"""How trials are distributed: the empirical distribution function of each platform with its confidence band.

The band is that of Dvoretzky, Kiefer and Wolfowitz with Massart's constant (The Annals of Probability 18(3), 1990): the
true function lies within ``sqrt(ln(2 / alpha) / (2 n))`` of the empirical one everywhere with probability 1 - alpha.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup
from msgspec import Struct

from reports.figures.marks import Look, Picture, Points, assign_looks, join, marker, path, segment, stretched
from reports.figures.matrix import Cell, Column, Matrix, Row, draw_matrix
from reports.figures.scales import Scale, choose_scale
from reports.overview import Overview, find_tail, select_at_rate, select_rate
from reports.quantities import LOAD, START, Quantity
from reports.thinning import thin_ranks
from testbed.analysis import Platform, Run, list_compared, select_values

_ALPHA = 0.05
_CURVE_PX, _DOTS_PX = 46, 14
_MOST_STEPS, _MOST_DOTS = 300, 120
_DIM = 2  # fewer trials have no distribution


class _Source(Struct, frozen=True):
    """A column: what is distributed, and a platform's values in base units."""

    head: str
    note: str
    quantity: Quantity
    measure: str
    values: Callable[[Platform], Sequence[float]]


def band_width(n: int) -> float:
    """Return the half width of the 95 % band of an empirical distribution function of ``n`` values."""
    return math.sqrt(math.log(2 / _ALPHA) / (2 * n))


def step_points(values: Sequence[float]) -> list[tuple[float, float]]:
    """Return the steps of the empirical distribution function: each value and the fraction up to it, inclusive."""
    ordered = sorted(values)
    n = len(ordered)
    at = (
        sorted({round(step * (n - 1) / (_MOST_STEPS - 1)) for step in range(_MOST_STEPS)})
        if n > _MOST_STEPS
        else range(n)
    )
    return [(ordered[index], (index + 1) / n) for index in at]


def draw_distributions(run: Run, overview: Overview) -> list[Picture]:
    """Draw a row a platform, a column a figure; none where no platform has two trials of one."""
    columns: list[Column] = []
    cells: dict[tuple[int, int], Cell] = {}
    looks, described = assign_looks(run), []
    platforms = [one for one in overview.platforms]
    for source in _sources(run):
        compared = list_compared(run, source.measure)
        values = {one: [v * source.quantity.scale for v in source.values(one)] for one in platforms if one in compared}
        values = {one: of for one, of in values.items() if len(of) >= _DIM}
        if not values:
            continue
        scale = choose_scale([value for of in values.values() for value in of], "log")
        for row, one in enumerate(platforms):
            if one in values:
                cells[row, len(columns)] = _cell(values[one], looks[one.name], scale)
                described.append(f"{source.head}, {one.label}: {_spread(values[one], source.quantity)}")
        columns.append(Column(source.head, f"{source.note}, {source.quantity.unit}", scale, ticks=4))
    if not columns:
        return []
    rows = [Row(one.label, looks[one.name]) for one in platforms]
    shown = [at for at in range(len(rows)) if any((at, column) in cells for column in range(len(columns)))]
    cells = {(shown.index(row), column): cell for (row, column), cell in cells.items()}
    markup = draw_matrix(
        Matrix(columns, [rows[at] for at in shown], cells, _CURVE_PX + _DOTS_PX, class_="distribution")
    )
    caption = (
        "Each curve: the part of the trials, from none to all, that were at or below a value, with the band in which"
        " the true curve lies with 95 % (Dvoretzky, Kiefer and Wolfowitz). Below it each trial"
        f" (of more than {_MOST_DOTS}, so many by rank)."
    )
    return [Picture(markup, "How trials are distributed", f"{'. '.join(described)}.", caption, wide=True)]


def _sources(run: Run) -> list[_Source]:
    sources = [
        _Source(
            "First answer", "since the request", START["ready"], "start",
            lambda one: select_values(run, "start", one.name, "ready"),
        )
    ]  # fmt: skip
    if (rate := select_rate(run)) is not None:
        at, tail = f"at {rate:g}/s", find_tail(run, rate)
        sources += [
            _Source(
                "CPU time of a request", at, LOAD["cpu_per_request"], "utilisation",
                lambda one: select_at_rate(run, one.name, "cpu_per_request", rate),
            ),
            _Source(
                LOAD[tail].title.capitalize(), at, LOAD[tail], "utilisation",
                lambda one: select_at_rate(run, one.name, tail, rate),
            ),
        ]  # fmt: skip
    return sources


def _spread(values: Sequence[float], quantity: Quantity) -> str:
    low, high = min(values) / quantity.scale, max(values) / quantity.scale
    return f"{len(values)} trials from {quantity.show(low)} to {quantity.show(high)}"


def _cell(values: Sequence[float], look: Look, scale: Scale) -> Cell:
    width = band_width(len(values))
    steps = step_points(values)

    def place(fractions: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(scale.place(value), 2 + (_CURVE_PX - 4) * (1 - fraction)) for value, fraction in fractions]

    floor, ceiling = _CURVE_PX - 2, 2
    curve: Points = [(0, floor), *place(steps), (1, ceiling)]
    upper = [(value, min(1.0, fraction + width)) for value, fraction in steps]
    lower = [(value, max(0.0, fraction - width)) for value, fraction in steps]
    outline = _outline(place(upper), place(lower), width)
    dots_y = _CURVE_PX + _DOTS_PX / 2
    dots = [marker(look, scale.place(value), dots_y, "small") for value in thin_ranks(values, _MOST_DOTS)]
    drawn: list[Markup] = [
        segment(0, floor, 1, floor, "grid"),
        stretched(
            _CURVE_PX, path(outline, f"dkw c{look.hue}", closed=True), path(curve, f"line {look.classes}", steps=True)
        ),
        *dots,
    ]
    return Cell(join(*drawn), note=f"n = {len(values)}")


def _outline(
    upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]], width: float
) -> list[tuple[float, float]]:
    """Return the band's outline: along the upper steps from the left end, and back along the lower ones."""
    span = _CURVE_PX - 4
    before = 2 + span * (1 - min(1.0, width))
    after = 2 + span * min(1.0, width)
    there: list[tuple[float, float]] = [(0, before)]
    for x, y in upper:
        there += [(x, there[-1][1]), (x, y)]
    there.append((1, there[-1][1]))
    back: list[tuple[float, float]] = [(1, after)]
    for at in range(len(lower) - 1, -1, -1):
        x = lower[at][0]
        y_left = lower[at - 1][1] if at else 2 + span
        back += [(x, back[-1][1] if at < len(lower) - 1 else lower[at][1]), (x, y_left)]
    back.append((0, 2 + span))
    if lower:
        back[0] = (1, lower[-1][1])
    return [*there, *back]
