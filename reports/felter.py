"""The table of Felter et al. (2014), made again of runs: native, container, machine and tuned machine, each beside the
published figure.

Numbers of two machines and two decades cannot be compared; what can is how far each platform is from the first one that
was measured here. A guest of an emulator has no such ratio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct, to_builtins

from reports.quantities import Quantity
from reports.work import describe_figure, show_published
from testbed.analysis import Figure, Run, estimate_work
from testbed.published import Mark, list_marks

if TYPE_CHECKING:
    from rich.table import Table

WORK = "felter2014"
# Their columns, and our platform in each.
COLUMNS: Mapping[str, str] = {"native": "process", "container": "container", "vm": "vm", "vm-tuned": "vm-tuned"}
_TITLES = {"native": "native", "container": "container", "vm": "VM, untuned", "vm-tuned": "VM, tuned"}
# What of our scenarios stands in for what they measured.
FIGURES: Mapping[str, tuple[str, ...]] = {
    "hpc": (*("xz", "linpack", "stream_copy", "stream_scale", "stream_add", "stream_triad", "random_access"),),
    "net": ("to_server", "to_client", "round_trip"),
    "disk": ("seq_read", "seq_write", "rand_read_rate", "rand_write_rate", "rand_read_latency"),
    "kv": ("get_rate", "set_rate"),
    "db": ("transactions",),
}
LEGEND = (
    "Ours: medians, with 95 % intervals or, of fewer than six trials, the range. 2014: means with standard deviations,"
    " as published or computed from the authors' runs; sources: testbed/published.yaml. x: ratio to the first platform"
    " that was measured here, or where that has no published figure, to native."
)


class Cell(Struct, frozen=True):
    """A figure on a platform: ours and the published one, and each as a ratio to that of the first column that has one
    of ours. A published one is ``to_native`` where that column has no published figure, or only ratios were published.

    ``emulated``: ours is of an emulator's guest, and has no ratio.
    """

    ours: Figure | None = None
    published: Mark | None = None
    ratio: float | None = None
    published_ratio: float | None = None
    to_native: bool = False
    emulated: bool = False


class Row(Struct, frozen=True):
    """A figure of a scenario, with its cells by column."""

    scenario: str
    figure: str
    cells: Mapping[str, Cell]


def make_rows(runs: Sequence[Run]) -> tuple[Row, ...]:
    """Return the table's rows, with cells for what is measured in one of the runs or published; of two runs of a
    scenario the later one counts."""
    by_scenario = {str(run.manifest.get("scenario")): run for run in runs}
    rows = (_row(by_scenario.get(scenario), scenario, name) for scenario in FIGURES for name in FIGURES[scenario])
    return tuple(row for row in rows if any(cell.ours for cell in row.cells.values()))


def _row(run: Run | None, scenario: str, name: str) -> Row:
    marks = {one.platform: one for one in list_marks(scenario, "work", name) if one.citation.id == WORK}
    emulated = {one.name for one in run.emulated} if run else set()
    ours = {column: estimate_work(run, platform).get(name) if run else None for column, platform in COLUMNS.items()}
    values = {column: one.estimate.value for column, one in ours.items() if one and COLUMNS[column] not in emulated}
    base = next(iter(values), "")
    published = {column: mark.value for column, mark in marks.items() if mark.unit != "1"}
    published_base = base if base in published else "native"
    ratios, published_ratios = _ratios(values, base), _ratios(published, published_base)
    published_ratios |= {column: mark.value for column, mark in marks.items() if mark.unit == "1"}
    return Row(
        scenario,
        name,
        {
            column: Cell(
                ours[column],
                marks.get(column),
                ratios.get(column),
                published_ratios.get(column),
                column in marks and (marks[column].unit == "1" or published_base != base),
                COLUMNS[column] in emulated and ours[column] is not None,
            )
            for column in COLUMNS
        },
    )


def _ratios(values: Mapping[str, float], base: str) -> dict[str, float]:
    """Return each value as a ratio to that of the column ``base``; none without it."""
    return {column: value / values[base] for column, value in values.items()} if values.get(base) else {}


def as_json(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the rows in base units, ready for ``json.dumps``."""
    return [to_builtins(row) for row in make_rows(runs)]


def list_notes(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return what must be known of the runs before anything is read in the table."""
    labels = dict.fromkeys(one.label for run in runs for one in run.emulated)
    notes = [f"{', '.join(labels)}: emulated, so there is no ratio to other platforms."] if labels else []
    notes += [f"{run.folder.run_id}: its seconds count instructions." for run in runs if run.instruction_time]
    quick = [run.folder.run_id for run in runs if run.manifest.get("quick")]
    notes += [f"Quick settings, which show orders of magnitude: {', '.join(quick)}."] if quick else []
    return tuple(notes)


def make_table(runs: Sequence[Run]) -> Table:
    """Return the table, ready to be printed: for each figure a line of ours and, if there is one, of the published."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("", "", *_TITLES.values()):
        table.add_column(title, overflow="fold")
    scenario = ""
    for row in make_rows(runs):
        if row.scenario != scenario:
            table.add_row(row.scenario, style="bold")
        scenario = row.scenario
        ours = [cell.ours for cell in row.cells.values() if cell.ours]
        marks = [cell.published for cell in row.cells.values() if cell.published]
        values = [one.estimate.value for one in ours]
        published = [mark.value for mark in marks if mark.unit != "1"]
        quantity = describe_figure(row.figure, ours[0].unit, max(values + published), min(values))
        table.add_row(f"  {quantity.title}", "ours", *(_ours(cell, quantity) for cell in row.cells.values()))
        if marks:
            table.add_row("", "2014", *(_published(cell, quantity) for cell in row.cells.values()), style="dim")
    return table


def _ours(cell: Cell, quantity: Quantity) -> str:
    if cell.ours is None:
        return "\N{EN DASH}"
    spread = quantity.qualify(cell.ours.estimate)
    lines = [quantity.show(cell.ours.estimate.value), *([spread] if spread else [])]
    return "\n".join([*lines, "emulated" if cell.emulated else _as_ratio(cell.ratio)]).rstrip()


def _published(cell: Cell, quantity: Quantity) -> str:
    if cell.published is None:
        return "\N{EN DASH}"
    shown, _, runs = show_published(cell.published, quantity).partition(" (")
    ratio = "" if cell.published.unit == "1" else _as_ratio(cell.published_ratio)
    beside = [ratio, "native" if ratio and cell.to_native else "", f"({runs}" if runs else ""]
    return "\n".join(filter(None, (shown, " ".join(filter(None, beside)))))


def _as_ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"x {ratio:.2f}"
