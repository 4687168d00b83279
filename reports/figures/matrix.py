"""A figure of rows and columns: every cell of a column is drawn on one axis, with its number as text beside it.

It is a grid on a wide screen and on paper; on a narrow screen the columns follow below each other, each with the rows'
labels again. So cells come column by column in the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup
from msgspec import Struct

from reports.figures.marks import Look, element, plot, segment
from reports.figures.scales import Scale
from reports.figures.ticks import draw_ticks, place_ticks

_AXIS_PX = 20
# No more rows than these are kept on one page of paper.
_SHORT_ROWS = 16


class Column(Struct, frozen=True):
    """A column: what it shows, a note below its head, and its axis, if it has one, with at most so many ``ticks`` or
    those that are given as ``labels``."""

    head: str
    note: str = ""
    scale: Scale | None = None
    ticks: int = 4
    labels: Sequence[tuple[float, str]] = ()

    def list_labels(self) -> Sequence[tuple[float, str]]:
        """Return the values that are marked on its axis, with their texts."""
        return self.labels or (self.scale.ticks(self.ticks) if self.scale else ())


class Row(Struct, frozen=True):
    """A row: its label, with the marker of its platform; or, as a ``heading``, a line above those that follow."""

    label: str
    look: Look | None = None
    heading: bool = False
    note: str = ""


class Cell(Struct, frozen=True):
    """What a row has in a column: marks on the column's axis, the figure, what stands to its right, and small print.

    ``base`` is a value at which a line goes through the rows, as a fraction of the axis.
    """

    marks: Markup = Markup("")
    text: str = ""
    aside: str = ""
    note: str = ""
    base: float | None = None
    quiet: bool = False  # what stands to the right is no figure


class Matrix(Struct, frozen=True):
    """A whole figure; ``cells`` by row and column, counted from 0."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    cells: Mapping[tuple[int, int], Cell]
    height_px: float = 20
    inline: bool = False  # the figure to the right of the marks, in one line
    class_: str = ""


def draw_matrix(matrix: Matrix) -> Markup:
    """Return the grid."""
    parts = [_row_label(row, at, first=True) for at, row in enumerate(matrix.rows)]
    for at, column in enumerate(matrix.columns):
        parts.append(_head(column, at))
        for below, row in enumerate(matrix.rows):
            if row.heading:
                parts.append(element("div", row.label, class_="heading again", style=_place(below, at)))
                continue
            if (cell := matrix.cells.get((below, at))) is not None:
                parts += [_row_label(row, below, first=False, column=at), _cell(matrix, column, cell, below, at)]
        if column.scale:
            parts.append(_axis(column, len(matrix.rows), at))
    kinds = ("matrix", "inline" * matrix.inline, "short" * (len(matrix.rows) <= _SHORT_ROWS), matrix.class_)
    return element("div", *parts, class_=" ".join(filter(None, kinds)), style=f"--columns:{len(matrix.columns)}")


def _place(row: int, column: int) -> str:
    """Return where something lies on a wide screen; the first row is that of heads, the first column of labels."""
    return f"--r:{row + 2};--k:{column + 2}"


def _head(column: Column, at: int) -> Markup:
    note = element("small", column.note) if column.note else Markup("")
    return element("div", element("strong", column.head), note, class_="head", style=f"--r:1;--k:{at + 2}")


def _row_label(row: Row, at: int, first: bool, column: int = -1) -> Markup:
    """Return a row's label: the ``first`` one, which wide screens show, or one of those of narrow screens."""
    if row.heading:
        return element("div", row.label, class_="heading once", style=f"--r:{at + 2};--k:1")
    sign = draw_sign(row.look) if row.look else Markup("")
    note = element("small", row.note) if row.note else Markup("")
    hidden = None if first else "true"
    return element(
        "div", sign, element("span", row.label, note), class_="label once" if first else "label again",
        style=_place(at, column), aria_hidden=hidden,
    )  # fmt: skip


def draw_sign(look: Look) -> Markup:
    """Return a platform's marker as it stands in a text."""
    mark = element("use", href=f"#m{look.marker}", x=7, y=7, class_=f"mark {look.classes}")
    return element("svg", mark, class_="sign", width=14, height=14, aria_hidden="true")


def _cell(matrix: Matrix, column: Column, cell: Cell, row: int, at: int) -> Markup:
    drawn = Markup("")
    if column.scale and (cell.marks or cell.text):
        grid = [segment(column.scale.place(value), 0, column.scale.place(value), matrix.height_px, "grid")
                for value, _ in column.list_labels()]  # fmt: skip
        base = [] if cell.base is None else [segment(cell.base, 0, cell.base, matrix.height_px, "base")]
        drawn = plot(matrix.height_px, *grid, *base, cell.marks)
    figure = [element("b", cell.text)] if cell.text else []
    figure += [element("span", cell.aside, class_="base-note" if cell.quiet else None)] if cell.aside else []
    shown = element("div", *figure, class_="figures") if figure else Markup("")
    small = element("small", cell.note) if cell.note else Markup("")
    return element("div", drawn, shown, small, class_="cell", style=_place(row, at))


def _axis(column: Column, rows: int, at: int) -> Markup:
    assert column.scale is not None
    texts = draw_ticks(place_ticks(column.scale, column.list_labels()), 15)
    line = segment(0, 0.5, 1, 0.5, "axis-line")
    return element("div", plot(_AXIS_PX, line, *texts), class_="axis", style=_place(rows, at))
