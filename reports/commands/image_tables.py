"""Images, their history and their differences as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.images.difference import Change
from runtime.images.listing import ListedImage, Step
from runtime.output import printable, shortened

_LETTERS = {"added": "A", "removed": "D", "changed": "C"}
_SHOWN_DIGITS = 12
_SHOWN_COMMAND = 100


def _align(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_SHOWN_DIGITS]


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:.1f} kB"


def describe_images(listed: Sequence[ListedImage]) -> str:
    """Return the images as a table."""
    rows = [("NAME", "ID", "CREATED", "PLATFORM", "LAYERS", "SIZE", "")]
    rows += [
        (
            printable(one.reference), _short(one.id), printable(one.created[:10]), printable(one.platform),
            str(one.layers), _size(one.size_bytes), printable(one.problem),
        )
        for one in listed
    ]  # fmt: skip
    return _align(rows)


def describe_history(steps: Sequence[Step]) -> str:
    """Return the steps as a table, the newest first."""
    rows = [("LAYER", "CREATED", "SIZE", "CREATED BY")]
    for step in reversed(steps):
        size = _size(step.size_bytes) if step.diff_id else ""
        by = shortened(" ".join(step.created_by.split()), _SHOWN_COMMAND)
        rows.append((_short(step.diff_id) or "-", printable(step.created[:10]), size, by))
    return _align(rows)


def describe_change(change: Change) -> str:
    """Return a change as a line."""
    path = printable(change.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
    return f"{_LETTERS[change.kind]} {path}" + (f"  ({change.what})" if change.what else "")
