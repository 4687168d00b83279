"""Reads tables of a run folder that anybody may have changed: bounded in size, and a cell may hold anything."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

# 500 instances, ten times a second for half a minute, are 10 MB.
_LARGEST_BYTES = 64 << 20
# No figure of a host is larger.
_LARGEST = 1e18

Row = Mapping[str, str]


def read_table(path: Path | None) -> list[Row]:
    """Return the rows of a CSV file with a header, by column; none where it is gone, too large, or no table."""
    try:
        if path is None or not path.is_file() or path.stat().st_size > _LARGEST_BYTES:
            return []
        with path.open(newline="", encoding="utf-8", errors="replace") as stream:
            return [{str(key): str(value) for key, value in row.items()} for row in csv.DictReader(stream, restval="")]
    except (OSError, csv.Error):
        return []


def parse_figure(text: str | None) -> float | None:
    """Return a number that a figure of a host can be; None for all else, an empty cell too."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if abs(value) <= _LARGEST else None
