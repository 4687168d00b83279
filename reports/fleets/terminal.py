"""Prints fleets and planned hosts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports.fleets import wording
from reports.fleets.wording import show_count
from reports.quantities import format_number, sanitize
from testbed.fleet.capacity import Copies
from testbed.fleet.simulate import Outcome
from testbed.fleet.study import Fleet

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from reports.fleets.data import Source, Step

_SHOWN_SWINGS = 7


def _make_console() -> Console:
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def _make_table(*titles: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for number, title in enumerate(titles):
        table.add_column(title, overflow="fold", justify="left" if number == 0 else "right")
    return table


def print_fleets(run: str, notes: Sequence[str], fleets: Sequence[Fleet]) -> None:
    """Print each fleet: hosts, bounds, power and cost, what it depends on, and what it rests on."""
    console = _make_console()
    console.print(sanitize(f"Footprints from {run}"), markup=False)
    for note in notes:
        console.print(sanitize(f"Note: {note}."), style="yellow", markup=False)
    for fleet in fleets:
        console.print()
        console.print(sanitize(fleet.outcome.source), style="bold", markup=False)
        console.print(_table_of_hosts(fleet.outcome))
        console.print(_table_of_packing(fleet.outcome))
        for line in wording.describe_further(fleet):
            console.print(sanitize(line), markup=False)
        _print_sensitivity(console, fleet)
    console.print()
    console.print("In brackets: 95 % intervals, of the footprints' alone.", style="dim")
    for number, line in enumerate(dict.fromkeys(line for one in fleets for line in one.outcome.assumptions)):
        console.print(sanitize(f"{'Assumptions: ' if not number else '  '}{line}"), style="dim", markup=False)
    console.print()
    for fleet in fleets:
        console.print(sanitize(wording.conclude(fleet.outcome)), style="bold", markup=False)


def _table_of_hosts(outcome: Outcome) -> Table:
    from rich.markup import escape

    table = _make_table(
        "", "machines", "spare", "servers each", "CPU in use", "memory", "power", "cost a year", "ratio"
    )
    before = outcome.before
    table.add_row(
        "as they are", show_count(before.machines), "", "1", f"{outcome.utilisation:.1%}", "", _watts(before.watts),
        show_count(before.cost_year), "",
    )  # fmt: skip
    for one in outcome.hosted:
        pair = wording.find_pair(outcome, one.platform)
        table.add_row(
            escape(sanitize(one.label)), f"{wording.show_hosts(one.hosts)}", f"+{one.spare}",
            f"{one.servers_per_host:.1f}", f"{one.utilisation:.0%}", f"{one.memory:.0%}", _watts(one.bill.watts),
            show_count(one.bill.cost_year), wording.show_ratio(pair) if pair else "1",
        )  # fmt: skip
    return table


def _watts(watts: float) -> str:
    return f"{format_number(watts / 1000)} kW"


def _table_of_packing(outcome: Outcome) -> Table:
    from rich.markup import escape

    table = _make_table("packed by", "hosts", "above the lower bound", "lower bound", "by CPU", "by memory")
    for one in outcome.hosted:
        for packed in one.packed:
            table.add_row(
                f"{packed.heuristic}, {escape(sanitize(one.label))}", show_count(packed.hosts),
                f"{packed.distance:.1%}", f"{one.bound.hosts}", f"{one.bound.cpu:.1f}", f"{one.bound.memory:.1f}",
            )  # fmt: skip
    if outcome.rounding:
        table.caption = f"of it {outcome.rounding:.1%} for similar servers taken as equal"
    return table


def _print_sensitivity(console: Console, fleet: Fleet) -> None:
    from rich.markup import escape

    found = fleet.sensitivity
    if found is None:
        return
    shown = f"Hosts as {found.label}, times those as {found.base} (of {show_count(found.servers)} servers)"
    table = _make_table(escape(sanitize(shown)), "low", "ratio", "high", "ratio")
    for swing in found.swings[:_SHOWN_SWINGS]:
        cells = [
            text
            for one in (swing.low, swing.high)
            for text in (f"{one.value:g}", "does not fit" if one.ratio is None else f"{one.ratio:.2f}")
        ]
        table.add_row(swing.name, *cells)
    console.print(table)


def print_copies(source: Source, copies: Sequence[Copies], steps: Sequence[Step]) -> None:
    """Print how many copies fit on a host, what binds, and what was measured of that or how to measure it."""
    console = _make_console()
    console.print(sanitize(f"Footprints from {source.run}"), markup=False)
    for note in source.notes:
        console.print(sanitize(f"Note: {note}."), style="yellow", markup=False)
    names = list(dict.fromkeys(name for one in copies for name in one.by))
    table = _make_table("", "copies", "binds", *(f"by {name}" for name in names), "CPU in use", "memory")
    from rich.markup import escape

    for one in copies:
        table.add_row(
            escape(sanitize(one.label)), wording.show_hosts(one.copies), one.binds,
            *(show_count(one.by[name]) if name in one.by else "–" for name in names),
            f"{one.utilisation:.0%}", f"{one.memory:.0%}",
        )  # fmt: skip
    console.print(table)
    for one in copies:
        if line := wording.describe_check(one):
            console.print(sanitize(line), markup=False)
    for step in steps:
        console.print(sanitize(wording.describe_step(step)), markup=False)
    if not steps:
        console.print(
            "The service level is not in the model. Where such a host is at hand, ramps up to there tell:", style="dim"
        )
        for command in wording.advise_measuring(source.scenario, copies):
            console.print(sanitize(f"  {command}"), style="dim", markup=False)
