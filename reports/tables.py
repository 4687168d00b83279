"""The tables of a report: every estimate behind the figures, with its interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from reports import charges, conditions, consolidation, work
from reports.figures import memory
from reports.quantities import HELD_BACK, LOAD, RULERS, SATURATED, START, START_EXTRAS, Quantity, describe_phase
from reports.summary import describe_copies
from reports.temperatures import describe_cold
from testbed.analysis import (
    PARTS,
    HeldBack,
    Platform,
    Run,
    count_outcomes,
    count_steady,
    estimate_held_back,
    estimate_memory_of_copies,
    estimate_service_phases,
    estimate_start_extras,
    estimate_start_phases,
    estimate_utilisation,
    find_saturated,
    list_alone,
    list_compared,
    select_ramps,
)
from testbed.consolidations import estimate_idle, list_mixes
from testbed.statistics import Estimate

# Ends of ramps that are listed, trials that are named for each, and how much of a reason.
_MOST_ENDS, _MOST_NAMED, _LONGEST_REASON = 60, 8, 400


class Cell(Struct, frozen=True):
    """A cell: the figure, and in small print below it its interval."""

    text: str
    below: str = ""


class Table(Struct, frozen=True):
    """A table: the first cell of a row is its heading."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def _cell(quantity: Quantity, estimate: Any) -> Cell:
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
        (Cell(quantity.title), *(_cell(quantity, ends[one.name].get(name)) for one in having))
        for name, quantity in START.items()
        if any(name in ends[one.name] for one in having)
    )
    if any(watched for _, watched in steady.values()):
        counts = (f"{count} of {watched}" if watched else "–" for count, watched in (steady[p.name] for p in having))
        phases += ((Cell("trials in which it became steady"), *map(Cell, counts)),)
    phases += tuple(
        (Cell(quantity.title), *(_cell(quantity, extras[one.name].get(name)) for one in having))
        for name, quantity in START_EXTRAS.items()
        if any(name in extras[one.name] for one in having)
    )
    services = {one.name: estimate_service_phases(run, one.name) for one in having}
    slowest = max(services.values(), key=len, default={})
    pairs = dict.fromkeys((*slowest, *(pair for phases in services.values() for pair in phases)))
    by_service = tuple(
        (
            Cell(f"{service}: {describe_phase(name).title}"),
            *(_cell(describe_phase(name), services[one.name].get((service, name))) for one in having),
        )
        for service, name in pairs
    )
    head = (_head(run, "phase"), *labels)
    caption = f"{conditions.unit_of_time(run, 'Seconds')} since the application was requested"
    return [
        Table(
            f"{caption}: the application. Medians, with 95 % intervals (or the range of fewer than six trials).",
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
    return _cell(row.quantity, estimate)


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


def make_density_tables(run: Run, platforms: Sequence[Platform]) -> list[Table]:
    """Return what one more application takes."""
    by_platform = {one: of for one in platforms if (of := select_ramps(run, one.name))}
    rows = []
    for name, quantity in RULERS.items():
        held = [estimate_memory_of_copies(run, one.name, name) for one in by_platform]
        first = [each.first if each else None for each in held]
        further = [each.further if each else None for each in held]
        for title, estimates in (("first copy", first), ("each further copy", further)):
            if any(estimates):
                rows.append((Cell(f"{title}, {quantity.title}"), *(_cell(quantity, each) for each in estimates)))
    rows.append((Cell("copies within the service level"), *(Cell(*describe_copies(of)) for of in by_platform.values())))
    caption = (
        "Memory of copies: the first one (median over ramps), and the mean of what each further one adds, over the"
        " steps of all ramps, with its 95 % interval from three steps on."
    )
    return [Table(caption, ("figure", *(one.label for one in by_platform)), tuple(rows) if by_platform else ())]


def make_density_notes(run: Run) -> list[Table]:
    """Return where a copy's memory goes; how far the ramps went and why they ended, those that ended alike together."""
    ends: dict[tuple[str, int, str], list[int]] = {}
    for one in run.platforms:
        for ramp in select_ramps(run, one.name):
            ends.setdefault((one.label, ramp.applications, ramp.reason or "no reason given"), []).append(ramp.trial)
    rows = tuple(
        (Cell(label, _name_trials(trials)), Cell(str(copies)), Cell(reason[:_LONGEST_REASON]))
        for (label, copies, reason), trials in list(ends.items())[:_MOST_ENDS]
    )
    left_out = f" The first {_MOST_ENDS} of {len(ends)} ends." if len(ends) > _MOST_ENDS else ""
    return [_part_table(run), Table(f"Why ramps ended.{left_out}", ("ramps", "copies", "reason"), rows)]


def _name_trials(trials: Sequence[int]) -> str:
    shown = ", ".join(str(trial) for trial in trials[:_MOST_NAMED])
    more = f" and {len(trials) - _MOST_NAMED} more" if len(trials) > _MOST_NAMED else ""
    return f"trial{'s' if len(trials) > 1 else ''} {shown}{more}"


def _part_table(run: Run) -> Table:
    """Return every part of a copy's memory, and their sum."""
    by_platform = memory.select_measured(run)
    rows = [
        (
            Cell(memory.describe_part(name).title),
            *(_cell(memory.describe_part(name), parts.get(name)) for parts in by_platform.values()),
        )
        for name in PARTS
        if any(name in parts for parts in by_platform.values())
    ]
    sums = (sum(one.value for one in parts.values()) for parts in by_platform.values())
    rows.append((Cell("sum"), *(Cell(memory.describe_part("").show(size)) for size in sums)))
    return Table(
        "Where a copy's memory goes, at the end of the ramp: a page that several map is divided among them.",
        ("part", *(one.label for one in by_platform)),
        tuple(rows) if by_platform else (),
    )


def make_consolidation_tables(run: Run) -> list[Table]:
    """Return a table for each mix of servers, a column a platform, and what an idle server costs."""
    labels = {one.name: one.label for one in run.platforms}
    tables = []
    for mix in list_mixes(run):
        rows = [
            (Cell(quantity.title), *(_cell(quantity, packed.figures.get(name)) for packed in mix.packed))
            for name, quantity in consolidation.FIGURES.items()
            if any(name in packed.figures for packed in mix.packed)
        ]
        if any(packed.overhead is not None for packed in mix.packed):
            overheads = (_cell(consolidation.OVERHEAD, packed.overhead) for packed in mix.packed)
            rows.append((Cell(consolidation.OVERHEAD.title), *overheads))
        ends = (Cell(consolidation.describe_end(one), "; ".join(one.reasons)[:_LONGEST_REASON]) for one in mix.packed)
        rows.append((Cell("why no more were added"), *ends))
        head = ("figure", *(f"{labels[one.platform]} (n = {one.ramps})" for one in mix.packed))
        caption = (
            f"{consolidation.name_servers(run, mix).capitalize()}. Medians, with 95 % intervals (or the range of fewer"
            " than six ramps)."
        )
        tables.append(Table(caption, head, tuple(rows)))
    return [*tables, _idle_table(run)]


def _idle_table(run: Run) -> Table:
    """Return what a server costs in an hour that has no load, while nothing else runs."""
    by_platform = {one: idle for one in run.platforms if (idle := estimate_idle(run, one.name))}
    rows = tuple(
        (Cell(quantity.title), *(_cell(quantity, idle.get(name)) for idle in by_platform.values()))
        for name, quantity in consolidation.IDLE.items()
    )
    return Table(
        "An idle server (a zombie): what it takes while nobody asks it anything. A wake-up is a thread that had gone to"
        " sleep and runs again (voluntary context switches): of a virtual machine QEMU's threads, its processors among"
        " them. Medians over the ramps of all mixes.",
        (_head(run, "in an hour"), *(one.label for one in by_platform)),
        rows if by_platform else (),
    )


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
                *(_cell(quantity, figures[one.name].estimate if one.name in figures else None) for one in having),
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
            f"{one.label}: medians by offered rate, with 95 % intervals (or the range of fewer than six trials).",
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
    return _cell(LOAD[name], estimate)


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
