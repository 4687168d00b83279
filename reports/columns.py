"""A table for a terminal: on a narrow one cells fold, and platforms that do not fit side by side follow below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from rich.table import Table

_GAP = 2
# To which a folded table's columns shrink; a word that is longer is folded itself.
_FIGURE_WIDTH, _CELL_WIDTH = 26, 20
_ABSENT = "\N{EN DASH}"


class Line(Struct, frozen=True):
    """A line of the table: a measure's title, without cells, or a figure with its cells by platform."""

    title: str
    cells: Mapping[str, str] | None = None


class Part(Struct, frozen=True):
    """One table of those below each other: its platforms, and the widths of the figures' column and of theirs."""

    platforms: tuple[str, ...]
    figures: int
    widths: tuple[int, ...]
    folded: bool


def fold(cell: str) -> str:
    """Return a cell in two lines: what a figure rests on, in brackets, below it."""
    return cell.replace(" (", "\n(", 1)


def _width(texts: Sequence[str], most: int | None = None) -> int:
    width = max((len(line) for text in texts for line in text.split("\n")), default=1)
    return width if most is None else min(width, most)


def split_parts(rows: Sequence[Line], labels: Mapping[str, str], width: int) -> tuple[Part, ...]:
    """Return the tables for a terminal that is so wide: a single one as long as that fits, with cells folded if need
    be."""

    def widths(folded: bool) -> tuple[int, dict[str, int]]:
        shown = [fold(label) if folded else label for label in labels.values()]
        cells = [
            [fold(cell) if folded else cell for row in rows if row.cells and (cell := row.cells.get(name, _ABSENT))]
            for name in labels
        ]
        most = _CELL_WIDTH if folded else None
        figures = _width([row.title for row in rows], _FIGURE_WIDTH if folded else None)
        columns = (_width([label, *of], most) for label, of in zip(shown, cells, strict=True))
        return figures, dict(zip(labels, columns, strict=True))

    figures, columns = widths(folded=False)
    if figures + sum(_GAP + column for column in columns.values()) <= width:
        return (Part(tuple(columns), figures, tuple(columns.values()), False),)
    figures, columns = widths(folded=True)
    groups: list[list[str]] = []
    left = 0
    for name, column in columns.items():
        if not groups or left < _GAP + column:
            groups.append([])
            left = width - figures
        groups[-1].append(name)
        left -= _GAP + column
    return tuple(Part(tuple(names), figures, tuple(columns[name] for name in names), True) for names in groups)


def make_tables(rows: Sequence[Line], labels: Mapping[str, str], width: int, unit: str = "") -> list[Table]:
    """Return the same, ready to be printed; ``unit`` heads the figures' column."""
    from rich.markup import escape
    from rich.table import Table

    built = []
    for part in split_parts(rows, labels, width):
        shown = fold if part.folded else str
        table = Table(box=None, padding=0, pad_edge=False)
        table.add_column(unit, width=part.figures + _GAP, overflow="fold")
        for name, column in zip(part.platforms, part.widths, strict=True):
            table.add_column(escape(shown(labels[name])), width=column + _GAP, overflow="fold")
        for row in rows:
            if row.cells is None:
                table.add_row(escape(row.title), style="bold")
            else:
                cells = (escape(shown(row.cells.get(name, _ABSENT))) for name in part.platforms)
                table.add_row(escape(row.title), *cells)
        built.append(table)
    return built
