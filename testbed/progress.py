"""Reports progress to the person who waits."""

from __future__ import annotations

import sys

from runtime.output import printable


def print_progress(line: str) -> None:
    """Write a line on standard error, at once: standard output is for data. Nothing quoted from a workload controls the
    terminal."""
    print(printable(line), file=sys.stderr, flush=True)
