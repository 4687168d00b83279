"""The report as one HTML page that needs nothing else: figures, tables, facts, and what they mean."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from msgspec import Struct
from msgspec.structs import replace

from reports import charges, conditions, figures, memory, work
from reports.quantities import HELD_BACK, LOAD, RULERS, START, START_EXTRAS, Quantity, describe_phase, format_number
from reports.summary import SATURATED, compose, describe_copies
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
    get_mapping,
    list_alone,
    list_compared,
    select_ramps,
)
from testbed.statistics import Estimate

_TEMPLATES = Path(__file__).parent / "templates"
_BASIS = re.compile(r"\((?:median of|one trial|95.%.interval|range)[^()]*\)")
_BEFORE_UNIT = re.compile(r"(?<=[0-9]) (?=(?:s|ms|MiB|requests/s)\b|%|/s)")


class Cell(Struct, frozen=True):
    """A cell: the figure, and in small print below it its interval."""

    text: str
    below: str = ""


class Table(Struct, frozen=True):
    """A table: the first cell of a row is its heading."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


class Section(Struct, frozen=True):
    """One measure: its pictures (as data URIs), its tables, and what its trials came to."""

    pictures: tuple[tuple[str, figures.Picture], ...]
    tables: tuple[Table, ...]
    measured: bool


def render_page(run: Run) -> str:
    """Render the whole page."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"unbroken": bind_units, "lighter": dim_basis, "plain": format_plain}
    asked = run.manifest.get("measures")
    return environment.get_template("report.html.j2").render(
        run=run,
        manifest=run.manifest,
        answer=compose(run),
        when=_when(run.manifest),
        asked=asked if isinstance(asked, list) else ["start", "density", "utilisation"],
        start=_section(run, "start", figures.draw_start(run), _each_alone(run, "start", _start_tables)),
        density=_section(
            run,
            "density",
            (*figures.draw_density(run), *memory.draw_pictures(run)),
            [*_each_alone(run, "density", _density_tables), *_density_notes(run)],
        ),
        utilisation=_section(run, "utilisation", figures.draw_load(run), _load_tables(run)),
        work=_section(run, "work", (), [_work_table(run), _published_table(run)]),
        charges=_charges(run),
        published=charges.list_sources(),
        clock=conditions.describe_clock(run),
        settings=_settings(run.manifest),
        outcomes=_outcomes(run),
        unsuccessful=[(one, reason) for one in count_outcomes(run) for reason in one.reasons],
        labels={one.name: one.label for one in (*run.platforms, *run.again)},
        platforms=[(one, flatten(one.facts)) for one in run.platforms],
        host=flatten(get_mapping(run.manifest.get("host"))),
        versions=flatten(get_mapping(run.manifest.get("versions"))),
        images=_images(run.manifest),
    )


def _lines(value: object) -> list[str]:
    return [str(line) for line in value] if isinstance(value, list) else []


def bind_units(text: str) -> str:
    """Return a text in which no line ends between a number and its unit."""
    return _BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", text)


def format_plain(value: object, scale: float = 1.0) -> str:
    """Return a setting as it was written: a number without needless digits, anything else as it is."""
    return f"{value * scale:g}" if isinstance(value, int | float) else str(value)


def dim_basis(text: str) -> Markup:
    """Return a text as markup in which what a figure rests on, in brackets after it, stands back."""
    return Markup(_BASIS.sub(r'<span class="basis">\g<0></span>', str(escape(text))))  # noqa: S704 # escaped before


def flatten(nested: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested facts as pairs of a readable name and a text, in their order; what is empty is left out."""
    rows: list[tuple[str, str]] = []
    for key, value in nested.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            rows += flatten(value, f"{name}: ")
        elif isinstance(value, list | tuple):
            rows.append((name, ", ".join(_sized("", item)[1] for item in value)))
        elif isinstance(value, bool):
            rows.append((name, "yes" if value else "no"))
        else:
            rows.append(_sized(name, value))
    return [(name, text) for name, text in rows if text not in ("", "None")]


def _sized(name: str, value: object) -> tuple[str, str]:
    """Format a fact: bytes in MiB or GiB, which read better, and a fraction with few digits."""
    if name.endswith(" bytes") and isinstance(value, int):
        unit, size = ("GiB", 2**30) if value >= 10 * 2**30 else ("MiB", 2**20)
        return name.removesuffix(" bytes"), f"{format_number(value / size)} {unit}"
    return name, format_number(value) if isinstance(value, float) else str(value)


def _when(manifest: Mapping[str, Any]) -> str:
    """Return when the run was, and how long it took."""
    try:
        began = datetime.fromisoformat(str(manifest.get("started")))
    except ValueError:
        return "at an unknown time"
    shown = f"{began.day} {began:%B %Y, %H:%M} UTC"
    try:
        took_s = (datetime.fromisoformat(str(manifest.get("finished"))) - began).total_seconds()
    except (ValueError, TypeError):
        return shown
    return f"{shown}, took {took_s / 60:.0f} min" if took_s >= 90 else f"{shown}, took {took_s:.0f} s"


def _section(run: Run, measure: str, pictures: Iterable[figures.Picture], tables: Iterable[Table]) -> Section:
    shown = tuple((_data_uri(picture.svg), picture) for picture in pictures)
    measured = any(one.ok for one in count_outcomes(run) if one.measure == measure)
    return Section(shown, tuple(table for table in tables if table.rows), measured)


def _charges(run: Run) -> Section:
    pictures = tuple(figures.Picture(*drawn) for drawn in charges.draw_ratios(run))
    tables = tuple(table for table in _count_tables(run) if table.rows)
    return Section(tuple((_data_uri(one.svg), one) for one in pictures), tables, bool(tables))


def _data_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _cell(quantity: Quantity, estimate: Any) -> Cell:
    """Return an estimate (or none) with its interval."""
    return Cell(quantity.show(estimate.value), quantity.qualify(estimate)) if estimate else Cell("–")


def _each_alone(run: Run, measure: str, tables: Callable[[Run, Sequence[Platform]], list[Table]]) -> list[Table]:
    """Return the tables of the platforms that are compared, then those of each that is set against nothing."""
    shown = tables(run, list_compared(run, measure))
    for one in list_alone(run, measure):
        note = f"{one.label}, which starts warm, set against nothing: this run has no {describe_cold(one)}."
        shown += [replace(table, caption=f"{note} {table.caption}") for table in tables(run, (one,))]
    return shown


def _start_tables(run: Run, platforms: Sequence[Platform]) -> list[Table]:
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


def _count_tables(run: Run) -> list[Table]:
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


def _density_tables(run: Run, platforms: Sequence[Platform]) -> list[Table]:
    """Return what one more application takes."""
    by_platform = {one: of for one in platforms if (of := select_ramps(run, one.name))}
    rows = []
    for name, quantity in RULERS.items():
        held = [estimate_memory_of_copies(of, name) for of in by_platform.values()]
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


def _density_notes(run: Run) -> list[Table]:
    """Return where a copy's memory goes; how far each ramp went and why it ended."""
    ends = tuple(
        (Cell(f"trial {ramp.trial}: {one.label}"), Cell(str(ramp.applications)), Cell(ramp.reason or "no reason given"))
        for one in run.platforms
        for ramp in select_ramps(run, one.name)
    )
    return [_part_table(run), Table("Why each ramp ended.", ("ramp", "copies", "reason"), ends)]


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


def _work_table(run: Run) -> Table:
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


def _published_table(run: Run) -> Table:
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


def _load_tables(run: Run) -> list[Table]:
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


def _outcomes(run: Run) -> Table:
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


def _settings(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the text of the page speaks of, each empty when the manifest has it not."""
    settings = get_mapping(manifest.get("settings"))
    sections = {name: get_mapping(settings.get(name)) for name in ("ready", "load", "slo", "density", "work")}
    return {"flat": flatten(settings), **sections}


def _images(manifest: Mapping[str, Any]) -> Sequence[tuple[str, str, str, str, list[str]]]:
    """Return service, reference, base (if any is recorded), id and layers of every image."""
    images = get_mapping(manifest.get("images"))
    return [
        (
            str(name),
            str(image.get("reference", "")),
            str(get_mapping(image.get("base")).get("reference", "")),
            str(image.get("id", "")),
            _lines(image.get("layers")),
        )
        for name, image in images.items()
        if isinstance(image, Mapping)
    ]
