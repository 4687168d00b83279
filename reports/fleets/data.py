"""Fleets and planned hosts as data: ready for ``json.dumps``, and as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, to_builtins

from reports.fleets import wording
from testbed.fleet.capacity import Copies
from testbed.fleet.study import Fleet
from testbed.footprints import Footprint
from testbed.history import PastFigure

# Raised when a reader of the version before would read the document wrong.
FLEET_SCHEMA, PLAN_SCHEMA = "testbed-fleet/1", "testbed-plan/1"
COLUMNS = (
    *("fleet", "servers", "utilisation_before", "watts_before", "cost_year_before", "platform", "label", "emulated"),
    *("hosts", "hosts_low", "hosts_high", "is_interval", "spare", "heuristic", "bound", "bound_cpu", "bound_memory"),
    *("binds", "servers_per_host", "utilisation", "utilisation_own", "memory", "watts", "cost_year"),
    *("ratio", "ratio_low", "ratio_high"),
)


class Source(Struct, frozen=True):
    """Where figures come from: the run, its scenario, the footprints, and what must be known of them."""

    run: str
    scenario: str
    footprints: tuple[Footprint, ...]
    notes: tuple[str, ...]


def fleets_as_json(source: Source, fleets: Sequence[Fleet], history: Sequence[PastFigure]) -> dict[str, Any]:
    """Return fleets with what they rest on: base units (bytes, W, fractions)."""
    return {
        "schema": FLEET_SCHEMA,
        "run": source.run,
        "scenario": source.scenario,
        "conclusions": [wording.conclude(one.outcome) for one in fleets],
        "notes": source.notes,
        "footprints": to_builtins(source.footprints),
        "fleets": to_builtins(fleets),
        "history": to_builtins(history),
    }


class Step(Struct, frozen=True):
    """What a ramp on the planned host saw with so many copies: ``verdict`` is held, undecided or broke, "" when it did
    not come so far; ``ended`` says why it went no further. ``run`` is the run folder."""

    label: str
    copies: int
    verdict: str
    ended: str
    run: str


def copies_as_json(source: Source, copies: Sequence[Copies], steps: Sequence[Step]) -> dict[str, Any]:
    """Return a planned host with what it rests on, and what was measured of it."""
    return {
        "schema": PLAN_SCHEMA,
        "run": source.run,
        "scenario": source.scenario,
        "sentences": [wording.describe_copies(one) for one in copies],
        "notes": source.notes,
        "to_measure": wording.advise_measuring(source.scenario, copies),
        "footprints": to_builtins(source.footprints),
        "copies": [{**to_builtins(one), "binds": one.binds} for one in copies],
        "measured": to_builtins(steps),
    }


def fleets_as_csv(fleets: Sequence[Fleet]) -> str:
    """Return a row for each fleet and platform; a cell is empty where a figure has none."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for fleet in fleets:
        outcome = fleet.outcome
        for one in outcome.hosted:
            pair = wording.find_pair(outcome, one.platform)
            best = min(one.packed, key=lambda packed: packed.hosts)
            ratio = (pair.ratio.value, pair.ratio.low, pair.ratio.high) if pair else ("", "", "")
            writer.writerow(
                (
                    *(fleet.name, outcome.servers, outcome.utilisation, outcome.before.watts, outcome.before.cost_year),
                    *(one.platform, one.label, int(one.emulated), one.hosts.value, one.hosts.low, one.hosts.high),
                    *(int(one.hosts.is_interval), one.spare, best.heuristic, one.bound.hosts, one.bound.cpu),
                    *(one.bound.memory, one.bound.binds, one.servers_per_host, one.utilisation, one.own, one.memory),
                    *(one.bill.watts, one.bill.cost_year, *ratio),
                )
            )
    return stream.getvalue()
