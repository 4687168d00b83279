"""The tables of a report: every estimate behind the figures, with its interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from reports import charges, conditions, work
from reports.cells import Cell, Table
from reports.quantities import (
    HELD_BACK,
    INTERVALS,
    LOAD,
    SATURATED,
    START,
    START_EXTRAS,
    Quantity,
    describe_phase,
)
from reports.temperatures import describe_cold
from testbed.analysis import (
    HeldBack,
    Platform,
    Run,
    count_outcomes,
    count_steady,
    estimate_held_back,
    estimate_service_phases,
    estimate_start_extras,
    estimate_start_phases,
    estimate_utilisation,
    find_saturated,
    list_alone,
    list_compared,
)
from testbed.statistics import Estimate


def show_estimate(quantity: Quantity, estimate: Any) -> Cell:
    """Return an estimate (or none) with its interval."""
    return Cell(quantity.show(estimate.value), quantity.qualify(estimate)) if estimate else Cell("–")


def list_each_alone(run: Run, measure: str, tables: Callable[[Run, Sequence[Platform]], list[Table]]) -> list[Table]:
    """Return the tables of the platforms that are compared, then those of each that is set against nothing."""
    shown = tables(run, list_compared(run, measure))
    for one in list_alone(run, measure):
        note = f"{one.label}, which starts warm, set against nothing: this run has no {describe_cold(one)}."
        shown += [replace(table, caption=f"{note} {table.caption}") for table in tables(run, (one,))]
    return shown


def make_start_tables(run: Run, platforms: Sequence[Platform]) -> list[Table]:
    """Return the application's phases, then each service's."""
    ends = {one.name: estimate_start_phases(run, one.name) for one in platforms}
    extras = {one.name: estimate_start_extras(run, one.name) for one in platforms}
    steady = {one.name: count_steady(run, one.name) for one in platforms}
    labels = tuple(
        f"{one.label} (n = {max(e.n for e in ends[one.name].values())})" for one in platforms if ends[one.name]
    )
    having = [one for one in platforms if ends[one.name]]
    phases = tuple(
        (Cell(quantity.title), *(show_estimate(quantity, ends[one.name].get(name)) for one in having))
        for name, quantity in START.items()
        if any(name in ends[one.name] for one in having)
    )
    if any(watched for _, watched in steady.values()):
        counts = (f"{count} of {watched}" if watched else "–" for count, watched in (steady[p.name] for p in having))
        phases += ((Cell("trials in which it became steady"), *map(Cell, counts)),)
    phases += tuple(
        (Cell(quantity.title), *(show_estimate(quantity, extras[one.name].get(name)) for one in having))
        for name, quantity in START_EXTRAS.items()
        if any(name in extras[one.name] for one in having)
    )
    services = {one.name: estimate_service_phases(run, one.name) for one in having}
    slowest = max(services.values(), key=len, default={})
    pairs = dict.fromkeys((*slowest, *(pair for phases in services.values() for pair in phases)))
    by_service = tuple(
        (
            Cell(f"{service}: {describe_phase(name).title}"),
            *(show_estimate(describe_phase(name), services[one.name].get((service, name))) for one in having),
        )
        for service, name in pairs
    )
    head = (_head(run, "phase"), *labels)
    caption = f"{conditions.unit_of_time(run, 'Seconds')} since the application was requested"
    return [
        Table(
            f"{caption}: the application. {INTERVALS}",
            head,
            phases,
        ),
        Table(
            f"{caption}: each service. Services start one after the other, in the order of their dependencies.",
            head,
            by_service,
        ),
        _held_back_table(run),
    ]


def _head(run: Run, title: str) -> str:
    """Return the head of a table's first column, which says what the times beside it are."""
    return f"{title}{conditions.in_instruction_time(run)}"


def make_count_tables(run: Run) -> list[Table]:
    """Return what was counted until the application was ready, and for each request."""
    until_ready = charges.list_start_counts(run)
    rate, for_each = charges.list_load_counts(run)
    counted = (
        "Exits of a guest to KVM by reason, faults and switches of the application's cgroups (of machines: of QEMU)"
    )
    return [
        _count_table(run, f"{counted}, from the request until ready. Medians.", until_ready),
        _count_table(
            run,
            f"The same for each request of a load, at {rate:g} requests/s; the warm-up and its requests are in it.",
            for_each,
        ),
    ]


def _count_table(run: Run, caption: str, rows: Sequence[charges.CountRow]) -> Table:
    platforms = [one for one in run.platforms if any(one.name in row.estimates for row in rows)]
    return Table(
        caption,
        ("count", *(one.label for one in platforms)),
        tuple((Cell(row.quantity.title), *(_count_cell(run, one, row) for one in platforms)) for row in rows),
    )


def _count_cell(run: Run, platform: Platform, row: charges.CountRow) -> Cell:
    if (estimate := row.estimates.get(platform.name)) is None:
        return Cell("–", charges.explain_absence(run, platform, row.name))
    return show_estimate(row.quantity, estimate)


def _held_back_table(run: Run) -> Table:
    """Return what quotas of processor time held back of each instance until the application was ready."""
    by_platform = {one: held for one in run.platforms if (held := estimate_held_back(run, one.name))}
    parts = dict.fromkeys(part for held in by_platform.values() for part in held)
    rows = tuple(
        (Cell(part), *(_held_back_cell(held.get(part)) for held in by_platform.values()))
        for part in parts
        if any(part in held and held[part].periods.value for held in by_platform.values())
    )
    return Table(
        "Held back by the limit of processor time until the application was ready: the part of the kernel's periods in"
        " which an instance had used up its quota and was stopped (nr_throttled), and for how long, added up over"
        " processors (throttled_time). Medians.",
        (_head(run, "instance"), *(one.label for one in by_platform)),
        rows,
    )


def _held_back_cell(held: HeldBack | None) -> Cell:
    if held is None:
        return Cell("–", "no quota")
    return Cell(HELD_BACK.show(held.periods.value), f"{describe_phase('').show(held.seconds.value)} in all")


def make_work_table(run: Run) -> Table:
    """Return the figures of the application's work, by platform."""
    platforms = list_compared(run, "work")
    rows = work.list_figures(run, {one.name: one for one in platforms})
    having = [one for one in platforms if any(one.name in figures for _, figures in rows)]
    return Table(
        "Figures of the work, as its own programs give them, and what it took. Medians, with 95 % intervals (or the"
        " range of fewer than six trials).",
        (_head(run, "figure"), *(one.label for one in having)),
        tuple(
            (
                Cell(quantity.title),
                *(
                    show_estimate(quantity, figures[one.name].estimate if one.name in figures else None)
                    for one in having
                ),
            )
            for quantity, figures in rows
        ),
    )


def make_published_table(run: Run) -> Table:
    """Return the published figures that those of the work are like."""
    return Table(
        "Published figures like these. It was another machine, another year and often another program: what may be"
        " compared is how platforms differ, not the numbers.",
        ("figure", "platform", "published", "in"),
        tuple(
            (
                Cell(mark.figure.replace("_", " "), mark.what),
                Cell(mark.platform),
                Cell(work.show_published(mark)),
                Cell(
                    f"{mark.citation.authors.split(',')[0]} et al. {mark.citation.year}, {mark.where}",
                    mark.citation.url,
                ),
            )
            for mark in work.list_published(run)
        ),
    )


def make_load_tables(run: Run) -> list[Table]:
    """Return one table a platform: a row for each rate."""
    by_platform = [(one, estimate_utilisation(run, one.name), find_saturated(run, one.name)) for one in run.platforms]
    shown = [name for name in LOAD if any(name in figures for _, rates, _ in by_platform for figures in rates.values())]
    return [
        Table(
            f"{one.label}, by offered rate. {INTERVALS}",
            (_head(run, "offered"), *(LOAD[name].title for name in shown)),
            tuple(
                (Cell(f"{rate:g} /s"), *(_load_cell(name, figures.get(name), behind.get(rate)) for name in shown))
                for rate, figures in rates.items()
            ),
        )
        for one, rates, behind in by_platform
    ]


def _load_cell(name: str, estimate: Estimate | None, behind: tuple[int, int] | None) -> Cell:
    """Return a figure at a rate; no latency where the platform fell ``behind`` in so many of so many trials."""
    if behind and name.startswith("latency_"):
        return Cell(SATURATED, f"in {behind[0]} of {behind[1]} trials")
    return show_estimate(LOAD[name], estimate)


def make_outcomes(run: Run) -> Table:
    labels = {one.name: one.label for one in (*run.platforms, *run.again)}
    rows = tuple(
        (
            Cell(f"{one.measure}: {labels.get(one.platform, one.platform)}"),
            *(Cell(str(count)) for count in (one.ok, one.failed, one.void, one.interrupted)),
        )
        for one in count_outcomes(run)
    )
    return Table(
        "Trials by outcome. Only those that are ok are in the figures.",
        ("trials", "ok", "failed", "void", "interrupted"),
        rows,
    )
