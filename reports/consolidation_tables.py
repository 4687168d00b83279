"""The tables of consolidation: each mix of servers by platform, and what an idle one costs."""

from __future__ import annotations

from reports import consolidation
from reports.cells import Cell, Table
from reports.conditions import in_instruction_time
from reports.quantities import INTERVALS
from reports.tables import show_estimate
from testbed.analysis import Run
from testbed.consolidations import estimate_idle, list_mixes

# How much of a reason is shown.
_LONGEST_REASON = 400


def make_consolidation_tables(run: Run) -> list[Table]:
    """Return a table for each mix of servers, a column a platform, and what an idle server costs."""
    labels = {one.name: one.label for one in run.platforms}
    tables = []
    for mix in list_mixes(run):
        rows = [
            (Cell(quantity.title), *(show_estimate(quantity, packed.figures.get(name)) for packed in mix.packed))
            for name, quantity in consolidation.FIGURES.items()
            if any(name in packed.figures for packed in mix.packed)
        ]
        if any(packed.overhead is not None for packed in mix.packed):
            overheads = (show_estimate(consolidation.OVERHEAD, packed.overhead) for packed in mix.packed)
            rows.append((Cell(consolidation.OVERHEAD.title), *overheads))
        head = ("figure", *(f"{labels[one.platform]} (n = {one.ramps})" for one in mix.packed))
        caption = f"{consolidation.name_servers(run, mix).capitalize()}. {INTERVALS}"
        tables.append(Table(caption, head, tuple(rows)))
    return [*tables, _idle_table(run), _end_table(run)]


def _end_table(run: Run) -> Table:
    """Return why no more servers were added."""
    labels = {one.name: one.label for one in run.platforms}
    rows = tuple(
        (
            Cell(f"{mix.name}: {labels[one.platform]}"),
            Cell(consolidation.describe_end(one), "; ".join(one.reasons)[:_LONGEST_REASON]),
        )
        for mix in list_mixes(run)
        for one in mix.packed
    )
    return Table("Why no more servers were added.", ("servers", "reason"), rows)


def _idle_table(run: Run) -> Table:
    """Return what a server costs in an hour that has no load, while nothing else runs."""
    by_platform = {one: idle for one in run.platforms if (idle := estimate_idle(run, one.name))}
    rows = tuple(
        (Cell(quantity.title), *(show_estimate(quantity, idle.get(name)) for idle in by_platform.values()))
        for name, quantity in consolidation.IDLE.items()
    )
    return Table(
        "An idle server (a zombie): what it takes while nobody asks it anything. A wake-up is a thread that had gone to"
        " sleep and runs again (voluntary context switches): of a virtual machine QEMU's threads, its processors among"
        " them. Medians over the ramps of all mixes.",
        (f"in an hour{in_instruction_time(run)}", *(one.label for one in by_platform)),
        rows if by_platform else (),
    )
