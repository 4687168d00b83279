"""Prints a comparison: what differs first, then the figures, the most harm first, then what a gate says."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports.quantities import sanitize
from reports.runs import wording
from testbed.runs.compare import Comparison
from testbed.runs.fingerprint import Difference

if TYPE_CHECKING:
    from rich.console import Console

# Of each group of the fingerprint so many differences are told; the JSON has all.
_SHOWN_OF_GROUP = 4
_STYLES = {"regression": "bold red", "cannot tell": "yellow", "ok": "green", "": ""}


def list_differences(differences: Sequence[Difference]) -> list[str]:
    """Return what differs, a line a group."""
    groups: dict[str, list[Difference]] = {}
    for one in differences:
        groups.setdefault(one.group, []).append(one)
    lines = []
    for group, of in groups.items():
        rest = len(of) - _SHOWN_OF_GROUP
        shown = "; ".join(map(str, of[:_SHOWN_OF_GROUP])) + (f"; and {rest} more" if rest > 0 else "")
        lines.append(f"{group}: {shown}")
    return lines


def print_comparison(comparison: Comparison, gate: bool) -> None:
    """Print a comparison on standard output; on a narrow terminal each figure takes lines of its own."""
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120, soft_wrap=False)
    before, after = comparison.before, comparison.after
    console.print(sanitize(f"Baseline: {wording.describe_side(before.runs, before.commits)}"), markup=False)
    console.print(sanitize(f"Compared: {wording.describe_side(after.runs, after.commits)}"), markup=False)
    differences = list_differences(comparison.differences)
    console.print("What differs between them:" if differences else "Nothing differs in what they were made of.")
    for line in differences:
        console.print(sanitize(f"  {line}"), markup=False)
    for note in comparison.notes:
        console.print(sanitize(f"Note: {note}"), style="yellow", markup=False)
    console.print()
    lines = wording.make_lines(comparison)
    told = [line for line, row in zip(lines, comparison.rows, strict=True) if not row.is_quiet]
    _print_rows(console, told)
    if len(told) < len(lines):
        rest = len(lines) - len(told)
        console.print(f"{rest} more, not judged, in which no change was seen; --json and --html have all.", style="dim")
    for name, sentence in wording.list_failures(comparison):
        console.print(sanitize(f"{name}: {sentence}"), markup=False)
    unit = "instruction time" if comparison.clock == "instructions" else "medians"
    console.print(f"The most harm first; {unit}, with 95 % intervals of figures and of their ratio.", style="dim")
    if gate:
        console.print(sanitize(wording.describe_result(comparison)), style=_STYLES[comparison.result], markup=False)


def _print_rows(console: Console, lines: Sequence[wording.Line]) -> None:
    """Print a table where it fits the terminal, else each figure in lines of its own."""
    from rich.markup import escape
    from rich.table import Table

    rows = [
        (
            one.platform,
            one.title,
            one.before,
            one.after,
            f"{one.change} {one.interval and f'({one.interval})'}".strip(),
            one.verdict,
        )
        for one in lines
    ]
    head = ("platform", "figure", "baseline", "compared", "change", "verdict")
    widths = [max((len(row[column]) for row in (head, *rows)), default=0) for column in range(5)]
    if sum(widths) + 2 * 5 + 20 > console.width:
        for row, line in zip(rows, lines, strict=True):
            console.print(sanitize(f"{row[0]}, {row[1]}: {row[4]}"), style="bold", markup=False)
            console.print(sanitize(f"    {row[2]} → {row[3]}"), markup=False)
            if row[5]:
                console.print(sanitize(f"    {row[5]}"), style=_STYLES[line.result], markup=False)
        console.print()
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in head:
        table.add_column(title, overflow="fold")
    for row, line in zip(rows, lines, strict=True):
        table.add_row(
            *(escape(sanitize(text)) for text in row[:5]),
            f"[{_STYLES[line.result]}]{escape(sanitize(row[5]))}[/]" if line.result else "",
        )
    console.print(table)
    console.print()
