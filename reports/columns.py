"""A table for a terminal, of which nothing is cut: where platforms do not fit side by side, each gets a row of its own.

A figure is a row and a platform a column, first with each cell in one line, then with what it rests on in a line below.
Where that is too wide still, the table is transposed: a platform is a row, and figures are columns, as many beside each
other as fit; the rest follow below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from reports.quantities import sanitize

if TYPE_CHECKING:
    from rich.table import Table

_GAP = 2
# To which a folded table's columns shrink; a word that is longer is folded itself.
_FIGURE_WIDTH, _CELL_WIDTH = 26, 20
# And those of a transposed one.
_LABEL_WIDTH, _TITLE_WIDTH = 22, 14
_ABSENT = "\N{EN DASH}"


class Line(Struct, frozen=True):
    """A line of the table: a measure's title, without cells, or a figure with its cells by platform."""

    title: str
    cells: Mapping[str, str] | None = None


class Part(Struct, frozen=True):
    """One table: the text and width of each column's head, and its rows; ``title`` is the measure's of a transposed
    one."""

    head: tuple[str, ...]
    widths: tuple[int, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


def fold(cell: str) -> str:
    """Return a cell in two lines: what a figure rests on, in brackets, below it."""
    return cell.replace(" (", "\n(", 1)


def _width(texts: Sequence[str], most: int | None = None) -> int:
    width = max((len(line) for text in texts for line in text.split("\n")), default=1)
    return width if most is None else min(width, most)


def lay_out(rows: Sequence[Line], labels: Mapping[str, str], width: int, unit: str = "") -> tuple[Part, ...]:
    """Return the tables for a terminal that is so wide; ``unit`` heads the first column."""
    plain, folded = _stand_beside(rows, labels, unit, False), _stand_beside(rows, labels, unit, True)
    for part in (plain, folded):
        if sum(part.widths) + _GAP * (len(part.widths) - 1) <= width:
            return (part,)
    return _transpose(rows, labels, width, unit)


def _stand_beside(rows: Sequence[Line], labels: Mapping[str, str], unit: str, folded: bool) -> Part:
    """Return the table with a column a platform."""
    shown = fold if folded else str
    head = (unit, *(shown(label) for label in labels.values()))
    body = tuple(
        (row.title,) if row.cells is None else (row.title, *(shown(row.cells.get(name, _ABSENT)) for name in labels))
        for row in rows
    )
    columns = [[head[0], *(row[0] for row in body)]]
    columns += [[head[at], *(row[at] for row in body if len(row) > 1)] for at in range(1, len(head))]
    most = (_FIGURE_WIDTH, *[_CELL_WIDTH] * len(labels)) if folded else (None,) * len(head)
    return Part(head, tuple(map(_width, columns, most)), body)


def _transpose(rows: Sequence[Line], labels: Mapping[str, str], width: int, unit: str) -> tuple[Part, ...]:
    """Return a table for each measure, with a row a platform, and further ones for the figures that do not fit."""
    parts: list[Part] = []
    title, of_measure = "", list[Line]()
    for row in [*rows, Line("")]:
        if row.cells is not None:
            of_measure.append(row)
            continue
        parts += _transpose_measure(title, of_measure, labels, width, unit)
        title, of_measure = row.title, []
    return tuple(parts)


def _transpose_measure(
    title: str, rows: Sequence[Line], labels: Mapping[str, str], width: int, unit: str
) -> list[Part]:
    having = {name: label for name, label in labels.items() if any(name in (row.cells or {}) for row in rows)}
    first = _width([unit, *having.values()], _LABEL_WIDTH)
    columns = [[fold((row.cells or {}).get(name, _ABSENT)) for name in having] for row in rows]
    widths = [
        max(_width(cells, _CELL_WIDTH), min(_TITLE_WIDTH, max(map(len, row.title.split()), default=1)))
        for row, cells in zip(rows, columns, strict=True)
    ]
    groups: list[list[int]] = []
    left = 0
    for at, column in enumerate(widths):
        if not groups or left < _GAP + column:
            groups.append([])
            left = width - first
        groups[-1].append(at)
        left -= _GAP + column
    return [
        Part(
            (unit, *(rows[at].title.strip() for at in group)),
            (first, *(widths[at] for at in group)),
            tuple((label, *(columns[at][number] for at in group)) for number, label in enumerate(having.values())),
            title,
        )
        for group in groups
    ]


def make_tables(rows: Sequence[Line], labels: Mapping[str, str], width: int, unit: str = "") -> list[Table]:
    """Return the same, ready to be printed."""
    from rich.markup import escape
    from rich.table import Table

    built = []
    for part in lay_out(rows, labels, width, unit):
        title = escape(part.title)
        table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, title=title, title_justify="left")
        table.title_style = "bold"
        for text, column in zip(part.head, part.widths, strict=True):
            table.add_column(escape(sanitize(text)), width=column, overflow="fold")
        for row in part.rows:
            table.add_row(*(escape(sanitize(text)) for text in row), style="bold" if len(row) == 1 else None)
        built.append(table)
    return built
