"""Reports progress to the person who waits: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

from runtime.output import printable

Report = Callable[[str], None]
# How a run announces its trials, on a host as on the console of the reference machine, whose time comes first.
_STEP = re.compile(r"(?:\[ *\d+ s\] )?trials? (\d{1,9})(?: to (\d{1,9}))? of (?:about )?(\d{1,9}): (.+)", re.DOTALL)


class Step(Struct, frozen=True):
    """A line that says that trials begin: so many are ``done`` of about ``total``, and ``what`` is measured now."""

    done: int
    total: int
    what: str


def print_progress(line: str) -> None:
    """Write a line on standard error, at once: standard output is for data. Nothing quoted from a workload controls the
    terminal."""
    print(printable(line), file=sys.stderr, flush=True)


def parse_step(line: str) -> Step | None:
    """Return what a line of progress says of the run's trials; None for one that announces none."""
    match = _STEP.fullmatch(line)
    if match is None:
        return None
    done = int(match[1]) - 1
    return Step(done, max(int(match[3]), done + 1), match[4])


@contextmanager
def show_progress() -> Iterator[Report]:
    """Return what takes lines of progress. On a terminal a bar shows how far the run is, with the time left, and the
    other lines pass above it.

    The bar is drawn when a line comes and never between: a thread that redraws it would run beside what is measured.
    """
    if not sys.stderr.isatty():
        yield print_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True, highlight=False)
    if console.is_dumb_terminal:
        yield print_progress
        return
    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        task = progress.add_task("", total=None, visible=False)

        def report(line: str) -> None:
            step = parse_step(line)
            if step is None:
                console.print(printable(line), markup=False, soft_wrap=True)
            else:
                described = printable(step.what)
                progress.update(task, completed=step.done, total=step.total, description=described, visible=True)
            progress.refresh()

        yield report
