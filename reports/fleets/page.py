"""Fleets as one HTML page that needs nothing else: low, before and after, hosts saved, what it depends on, and
sources."""

from __future__ import annotations

from collections.abc import Sequence

from reports import theme
from reports.cells import Table, make_text_table
from reports.figures import ticks
from reports.figures.marks import Picture, define_symbols
from reports.fleets import figures, wording
from reports.fleets.data import Source
from reports.fleets.wording import show_count
from reports.quantities import MEBIBYTE, Quantity, format_number
from reports.templating import make_environment
from testbed.fleet.study import Fleet
from testbed.footprints import Footprint
from testbed.history import PastFigure

_MEMORY = Quantity("memory", "MiB", MEBIBYTE, most_decimals=1)
_CPU = Quantity("CPU time", "ms", 1e3, most_decimals=3)
_START = Quantity("start", "s", most_decimals=2)


def render_page(source: Source, fleets: Sequence[Fleet], history: Sequence[PastFigure]) -> str:
    """Render the page; the same fleets always give the same bytes."""
    environment = make_environment(lstrip_blocks=True)
    varied = [one.sensitivity for one in fleets if one.sensitivity is not None]
    pictures: list[Picture] = []
    for found in varied:
        if found.central.ratio is not None:
            pictures += [figures.draw_tornado(found), *figures.draw_curves(found)]
    return environment.get_template("fleet.html.j2").render(
        theme=theme,
        ticks=ticks,
        symbols=define_symbols(),
        run=source.run,
        scenario=source.scenario,
        headline=wording.conclude(fleets[0].outcome),
        sentences=[wording.conclude(one.outcome) for one in fleets[1:]],
        notes=source.notes,
        opening=figures.draw_utilisation(fleets),
        past=make_history_table(history),
        hosts=[make_hosts_table(one) for one in fleets],
        packing=[make_packing_table(one) for one in fleets],
        further=[line for one in fleets for line in wording.describe_further(one)],
        pictures=pictures,
        footprints=make_footprints_table(source.footprints),
        assumptions=list(dict.fromkeys(line for one in fleets for line in one.outcome.assumptions)),
        sources=history,
    )


def make_history_table(history: Sequence[PastFigure]) -> Table:
    """Return what others have published, with what was measured."""
    rows = (
        (
            str(one.year), "–" if one.talk is None else f"{one.talk:g}", wording.show_past(one),
            wording.QUANTITIES[one.quantity], one.measured, one.sample, one.comparable, wording.CHECKS[one.checked],
        )
        for one in history
    )  # fmt: skip
    head = (
        "year",
        "the talk's",
        "published",
        "of",
        "what was measured",
        "sample",
        "what it may be set beside",
        "checked",
    )
    return make_text_table("Published figures; sources at the end", head, rows)


def make_hosts_table(fleet: Fleet) -> Table:
    """Return machines, power and cost before and after."""
    outcome, before = fleet.outcome, fleet.outcome.before
    rows = [
        ("as they are", show_count(before.machines), "–", "1", f"{outcome.utilisation:.1%}", "–",
         f"{format_number(before.watts / 1e3)} kW", show_count(before.cost_year), "–", "–"),
    ]  # fmt: skip
    for one in outcome.hosted:
        pair = wording.find_pair(outcome, one.platform)
        rows.append(
            (one.label, wording.show_hosts(one.hosts), str(one.spare), f"{one.servers_per_host:.1f}",
             f"{one.utilisation:.0%}", f"{one.memory:.0%}", f"{format_number(one.bill.watts / 1e3)} kW",
             show_count(one.bill.cost_year), show_count(before.machines - one.machines),
             wording.show_ratio(pair) if pair else "1"),
        )  # fmt: skip
    head = (
        "",
        "machines",
        "spare",
        "servers each",
        "CPU in use",
        "memory in use",
        "power",
        "cost a year",
        "fewer",
        "ratio",
    )
    return make_text_table(f"{outcome.source}; in brackets 95 % intervals", head, rows)


def make_packing_table(fleet: Fleet) -> Table:
    """Return each heuristic's hosts beside the lower bound."""
    rows = (
        (one.label, packed.heuristic, show_count(packed.hosts), str(one.bound.hosts), f"{packed.distance:.1%}",
         f"{one.bound.cpu:.1f}", f"{one.bound.memory:.1f}")
        for one in fleet.outcome.hosted
        for packed in one.packed
    )  # fmt: skip
    similar = f"; of the distance {fleet.outcome.rounding:.1%} for similar servers taken as equal"
    caption = f"{fleet.outcome.source}: how it was packed{similar if fleet.outcome.rounding else ''}"
    return make_text_table(
        caption, ("", "heuristic", "hosts", "lower bound", "above it", "bound by CPU", "bound by memory"), rows
    )


def make_footprints_table(footprints: Sequence[Footprint]) -> Table:
    """Return what was measured."""
    rows = []
    for one in footprints:
        cells = [one.label]
        for quantity, estimate in (
            (_MEMORY, one.memory_first), (_MEMORY, one.memory_further), (_CPU, one.cpu_per_request),
            (_CPU, one.cpu_idle), (_START, one.start_s),
        ):  # fmt: skip
            cells.append("–" if estimate is None else quantity.show(estimate.value) + quantity.basis(estimate))
        rows.append(tuple(cells))
    head = ("", "first copy", "further copy", "CPU time per request", "CPU time of an idle copy, each second", "start")
    return make_text_table("What a copy takes, as the run measured it", head, rows)
