"""Progress, for the person who waits."""

from __future__ import annotations

import sys

from runtime.output import printable


def tell(line: str) -> None:
    """A line on standard error, at once: standard output is for data. What a workload is quoted with obeys nothing."""
    print(printable(line), file=sys.stderr, flush=True)
