"""Progress, for the person who waits."""

from __future__ import annotations

import sys


def tell(line: str) -> None:
    """A line on standard error, at once: standard output is for data."""
    print(line, file=sys.stderr, flush=True)
