"""The figures of an application's work on every platform, with published figures like them as marks beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reports.figures.marks import Picture, assign_looks, element, join, marker, number, percent, segment
from reports.figures.matrix import Cell, Column, Matrix, Row, draw_matrix
from reports.figures.scales import Scale, choose_scale
from reports.quantities import Quantity
from reports.work import list_figures, list_published, show_published
from testbed.analysis import Figure, Run, list_compared
from testbed.published import Mark

_COLUMNS_ABREAST, _MOST_COLUMNS = 4, 16
_STRIP_PX = 20


def draw_work(run: Run) -> list[Picture]:
    """Draw a row a platform, then one for each published platform; a column a figure. None without work."""
    platforms = list_compared(run, "work")
    figures = list_figures(run, {one.name: one for one in platforms})[:_MOST_COLUMNS]
    if not figures:
        return []
    marks = [mark for mark in list_published(run) if mark.unit != "1"]  # a ratio has no place on an axis of figures
    looks = assign_looks(run)
    having = [one for one in platforms if any(one.name in of for _, of in figures)]
    drawn, described = [], []
    for first in range(0, len(figures), _COLUMNS_ABREAST):
        columns, cells = [], {}
        part = figures[first : first + _COLUMNS_ABREAST]
        like_each = [[mark for mark in marks if mark.figure.replace("_", " ") == one.title] for one, _ in part]
        published = list(dict.fromkeys(_name(mark) for like in like_each for mark in like))
        rows = [Row(one.label, looks[one.name]) for one in having] + [Row(name, note="published") for name in published]
        for at, ((quantity, of), like) in enumerate(zip(part, like_each, strict=True)):
            scale = _scale(quantity, of, like)
            columns.append(Column(quantity.title, quantity.unit, scale, ticks=4))
            for row, one in enumerate(having):
                if one.name in of:
                    estimate = of[one.name].estimate
                    low, middle, high = (
                        scale.place(value * quantity.scale) for value in (estimate.low, estimate.value, estimate.high)
                    )
                    look, y = looks[one.name], _STRIP_PX / 2
                    line = [segment(low, y, high, y, f"interval {look.classes}")] if high > low else []
                    cells[row, at] = Cell(join(*line, marker(look, middle, y)), quantity.show(estimate.value))
                    described.append(f"{quantity.title}, {one.label} {quantity.show(estimate.value)}")
            for mark in like:
                cells[len(having) + published.index(_name(mark)), at] = _published_cell(mark, quantity, scale)
                described.append(f"{quantity.title}, published for {_name(mark)} {show_published(mark)}")
        drawn.append(draw_matrix(Matrix(columns, rows, cells, _STRIP_PX, class_="work")))
    caption = "Dot: median; line: its 95 % interval, or the range of fewer than six trials."
    if marks:
        caption += (
            " Open circles are published figures, with their standard deviation where it is known: another machine and"
            " another year, so compare how platforms differ, not the numbers."
        )
    alt = f"Figures of the work. {'; '.join(described)}."
    return [Picture(join(*drawn), "Figures of the work", alt, caption, wide=True)]


def _name(mark: Mark) -> str:
    """Return a published platform with the first author and the year."""
    author = mark.citation.authors.split(",")[0].split(" ")[-1]
    return f"{mark.platform} ({author} {mark.citation.year})"


def _scale(quantity: Quantity, of: Mapping[str, Figure], like: Sequence[Mark]) -> Scale:
    values = [edge for one in of.values() for edge in (one.estimate.low, one.estimate.value, one.estimate.high)]
    values += [mark.value + sign * (mark.sd or 0.0) for mark in like for sign in (-1, 0, 1)]
    return choose_scale([value * quantity.scale for value in values])


def _published_cell(mark: Mark, quantity: Quantity, scale: Scale) -> Cell:
    y = _STRIP_PX / 2
    sd = mark.sd or 0.0
    low, middle, high = (scale.place((mark.value + sign * sd) * quantity.scale) for sign in (-1, 0, 1))
    line = [segment(low, y, high, y, "published")] if high > low else []
    circle = element("circle", cx=percent(middle), cy=number(y), r=4.5, class_="published")
    return Cell(join(*line, circle), show_published(mark).partition(" (n")[0])
