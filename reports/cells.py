"""What tables of pages are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct


class Cell(Struct, frozen=True):
    """A cell: the figure, and in small print below it its interval."""

    text: str
    below: str = ""


class Table(Struct, frozen=True):
    """A table: the first cell of a row is its heading."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def make_text_table(caption: str, head: tuple[str, ...], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table whose cells have no small print."""
    return Table(caption, head, tuple(tuple(map(Cell, row)) for row in rows))
