"""Prints what a run of the ladder has found out: a matrix that a new user understands, findings, and the price."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from reports.ladder import wording
from reports.ladder.view import EXPLAINED, QUANTITIES, View
from reports.quantities import sanitize
from testbed.probes.model import VERDICTS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Findings that are printed; the page has all.
_MOST_FINDINGS = 12


def print_ladder(view: View) -> None:
    """Print the record."""
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    if view.outcomes:
        console.print("Ways out that were tried, and what the host saw of each:", style="bold")
        console.print(_table_of_verdicts(view))
        for name in VERDICTS:
            console.print(f"  {name:<11}{wording.VERDICTS[name]}", style="dim", markup=False)
        console.print()
        _print_findings(console, view)
    if view.costs:
        console.print(
            "What each costs (medians; in brackets 95 % intervals or, of few trials, the range):", style="bold"
        )
        if view.counts_instructions:
            console.print(f"  {wording.INSTRUCTION_TIME}", markup=False)
        console.print(_table_of_costs(view))
        for metric in _priced(view):
            console.print(f"  {QUANTITIES[metric].title}: {EXPLAINED[metric]}", style="dim", markup=False)
        console.print()
    if view.attacks:
        console.print("Who was hurt by a guest that takes what it can get:", style="bold")
        console.print(_table_of_walls(view))
        console.print()
    for one in view.ladder.missing:
        console.print(sanitize(f"without {one.rung}: {one.words}"), style="yellow", markup=False)
    console.print(sanitize(wording.conclude(view)), style="bold", markup=False)


def _make_table(*titles: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for number, title in enumerate(titles):
        table.add_column(title, overflow="fold", justify="left" if number == 0 else "right")
    return table


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(sanitize(text))


def _table_of_verdicts(view: View) -> Table:
    table = _make_table("", *VERDICTS)
    for one in view.subjects:
        tally = view.tally(one.name)
        if tally.verdicts:
            table.add_row(_escape(one.label), *(str(tally[name]) if tally[name] else "·" for name in VERDICTS))
    return table


def _print_findings(console: Console, view: View) -> None:
    known = [one for one in view.findings if view.explain(one) is not None]
    findings = [one for one in view.findings if one not in known]
    for one in findings[:_MOST_FINDINGS]:
        style = "red" if one.verdict == "leaked" else "yellow"
        console.print(sanitize(wording.describe_finding(view, one)), style=style, markup=False)
    if len(findings) > _MOST_FINDINGS:
        console.print(f"... and {len(findings) - _MOST_FINDINGS} more: --html FILE has all", style="dim")
    for rung in dict.fromkeys(one.rung for one in known):
        named = ", ".join(one.probe for one in known if one.rung == rung)
        console.print(sanitize(f"{rung}: known, and explained on the page: {named}"), style="dim", markup=False)
    if view.findings:
        console.print()


def _priced(view: View) -> list[str]:
    return [metric for metric in QUANTITIES if any((one.name, metric) in view.costs for one in view.subjects)]


def _table_of_costs(view: View) -> Table:
    metrics = _priced(view)
    table = _make_table("", *(QUANTITIES[metric].title for metric in metrics))
    for one in view.subjects:
        estimates = [view.costs.get((one.name, metric)) for metric in metrics]
        if not any(estimates):
            continue
        cells = []
        for metric, estimate in zip(metrics, estimates, strict=True):
            spread = QUANTITIES[metric].qualify(estimate).removeprefix("range ") if estimate else ""
            shown = QUANTITIES[metric].show(estimate.value) if estimate else "–"
            cells.append(_escape(f"{shown}\n({spread})" if spread else shown))
        table.add_row(_escape(one.label), *cells)
    return table


def _table_of_walls(view: View) -> Table:
    table = _make_table("", *map(wording.name_attack, view.attacks))
    pressed = {attack: view.pressures_of(attack) for attack in view.attacks}
    for one in view.subjects:
        own = [pressed[attack].get(one.name) for attack in view.attacks]
        if any(own):
            cells = ["·" if wall is None else "held" if wall.held else "[red]HURT[/red]" for wall in own]
            table.add_row(_escape(one.label), *cells)
    return table
