"""The short table of a run: a row a figure, with a text for each platform that has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from reports import charges, consolidation, neighbours, work
from reports.quantities import LOAD, RULERS, SATURATED, START, START_EXTRAS
from testbed.analysis import (
    Run,
    count_outcomes,
    estimate_start_extras,
    estimate_start_phases,
    estimate_utilisation,
    find_saturated,
    list_compared,
    read_run,
)
from testbed.ramps import Ramp, estimate_memory_of_copies, select_ramps
from testbed.results import RunFolder

_STOPPED = {"cap": "the cap", "slo": "then the service level broke", "memory": "then memory was short"}
_IN_TABLE = ("latency_p50", "latency_p90", "latency_p99", "cpu_per_request", "host_utilisation", "host_others")
_COUNTED = ("exits", "page_faults", "context_switches", "metered_cpu", "metered_memory")


class Row(Struct, frozen=True):
    """One figure of the short table, as a text for each platform (by name) that has it."""

    measure: str
    figure: str
    cells: Mapping[str, str]


def make_table(run_folder: Path) -> list[Row]:
    """Return the rows of the short table; every one has a cell for each platform that has the figure."""
    return make_rows(read_run(RunFolder.open(run_folder)))


def make_rows(run: Run) -> list[Row]:
    """Return the rows of ``make_table``, of a run that has been read."""
    compared = list_compared(run, "start")
    starts = {one.name: estimate_start_phases(run, one.name) for one in compared}
    extras = {one.name: estimate_start_extras(run, one.name) for one in compared}
    table = [
        Row("start", quantity.title, _cells(of, name, quantity.show, quantity.qualify))
        for of, quantities in ((starts, START), (extras, START_EXTRAS))
        for name, quantity in quantities.items()
    ]
    for one_count in charges.list_start_counts(run):
        if one_count.name in _COUNTED:
            cells = {one: one_count.quantity.show(of.value) for one, of in one_count.estimates.items()}
            table.append(Row("counted until ready", one_count.quantity.title, cells))
    ramped = {one.name: select_ramps(run, one.name) for one in list_compared(run, "density")}
    for name, quantity in RULERS.items():
        memory = {one: held for one in ramped if (held := estimate_memory_of_copies(run, one, name))}
        first = {one: {name: held.first} for one, held in memory.items()}
        further = {one: {name: held.further} for one, held in memory.items() if held.further}
        for title, of_platforms in (("first copy", first), ("each further", further)):
            cells = _cells(of_platforms, name, quantity.show, quantity.qualify)
            table.append(Row("density", f"{title}, {quantity.title}", cells))
    table.append(
        Row(
            "density",
            "copies within the SLO",
            {one: "{} ({})".format(*describe_copies(of)) for one, of in ramped.items() if of},
        )
    )
    loads = {one.name: estimate_utilisation(run, one.name) for one in list_compared(run, "utilisation")}
    for rate in sorted({rate for at in loads.values() for rate in at})[-1:]:
        at_rate = {one: at[rate] for one, at in loads.items() if rate in at}
        behind = {one: SATURATED for one in at_rate if rate in find_saturated(run, one)}
        for name in _IN_TABLE:
            cells = _cells(at_rate, name, LOAD[name].show, LOAD[name].qualify)
            cells |= behind if name.startswith("latency_") else {}
            table.append(Row(f"at {rate:g}/s", LOAD[name].title, cells))
    for quantity, figures in work.list_figures(run, {one.name: one for one in list_compared(run, "work")}):
        cells = _cells({one: {"": of.estimate} for one, of in figures.items()}, "", quantity.show, quantity.qualify)
        table.append(Row("work", quantity.title, cells))
    table += _neighbour_rows(run)
    for measure, quantity, estimates in consolidation.list_rows(run):
        cells = _cells({one: {"": of} for one, of in estimates.items()}, "", quantity.show, quantity.qualify)
        table.append(Row(measure, quantity.title, cells))
    table.append(Row("trials", "ok / failed / void", _outcomes(run)))
    return [row for row in table if row.cells]


def _neighbour_rows(run: Run) -> list[Row]:
    """Return a row a neighbour, with what matters most of what it did on each platform."""
    measured = neighbours.list_measured(run, list_compared(run, "neighbours"))
    tail = neighbours.choose_tail(one for effects in measured.values() for one in effects)
    rows: dict[str, dict[str, str]] = {}
    for platform, effects in measured.items():
        for one in effects:
            rows.setdefault(one.case.name, {})[platform] = str(neighbours.describe_effect(one, tail))
    return [Row("beside a neighbour, relative to alone", case, cells) for case, cells in rows.items()]


def _cells(
    by_platform: Mapping[str, Mapping[str, Any]], name: str, show: Callable[[float], str], spread: Callable[[Any], str]
) -> dict[str, str]:
    cells = {}
    for one, figures in by_platform.items():
        if name in figures:
            extra = spread(figures[name])
            cells[one] = show(figures[name].value) + (f" ({extra})" if extra else "")
    return cells


def _outcomes(run: Run) -> dict[str, str]:
    counts: dict[str, list[int]] = {}
    for tally in count_outcomes(run):
        sums = counts.setdefault(tally.platform, [0, 0, 0])
        for index, count in enumerate((tally.ok, tally.failed, tally.void)):
            sums[index] += count
    return {one: " / ".join(map(str, sums)) for one, sums in counts.items()}


def describe_copies(of: Sequence[Ramp]) -> tuple[str, str]:
    """Return how many applications ran within the service level (of several ramps the least and the most), and why no
    more."""
    counts = sorted({ramp.applications for ramp in of})
    shown = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    reasons = dict.fromkeys(_STOPPED.get(ramp.reason.partition(":")[0], ramp.reason) for ramp in of)
    return shown, ", or ".join(reasons)
