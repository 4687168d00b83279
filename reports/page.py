"""The report as one HTML page that needs nothing else: the answer as a picture, then everything behind it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import Markup, escape
from msgspec import Struct

from reports import (
    charges,
    conditions,
    consolidation_tables,
    density_tables,
    neighbour_tables,
    overview,
    provenance,
    rungs,
    tables,
    theme,
    trials,
)
from reports import consolidation as servers
from reports.cells import Table
from reports.figures import (
    consolidation,
    density,
    distribution,
    load,
    memory,
    neighbours,
    noise,
    opening,
    percentiles,
    prices,
    samples,
    ticks,
    timeline,
    waterfall,
    work,
)
from reports.figures.marks import Picture, define_symbols
from reports.provenance import list_facts, parse_time
from reports.summary import compose
from reports.templating import make_environment
from testbed.analysis import Run, count_outcomes, get_mapping
from testbed.rungs.read import read_history

_BASIS = re.compile(r"\((?:median of|one trial|95.%.interval|range)[^()]*\)")
# The settings that the text speaks of.
_SETTINGS = ("ready", "load", "slo", "density", "neighbours", "work")
# Reasons of trials that are not ok: beyond so many they are in trials.jsonl.
_MOST_REASONS, _LONGEST_REASON = 60, 4000


class Section(Struct, frozen=True):
    """One measure: its pictures, its tables, and whether it was measured."""

    pictures: tuple[Picture, ...]
    tables: tuple[Table, ...]
    measured: bool


def render_page(run: Run) -> str:
    """Render the whole page."""
    environment = make_environment(lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"lighter": dim_basis, "plain": format_setting}
    return environment.get_template("report.html.j2").render(describe_run(run))


def describe_run(run: Run) -> dict[str, Any]:
    """Return everything that the template shows."""
    asked = run.manifest.get("measures")
    answer = compose(run)
    shown = overview.make_overview(run)
    logs = provenance.find_logs(run.folder)
    reasons = [(one, reason[:_LONGEST_REASON]) for one in count_outcomes(run) for reason in one.reasons]
    return {
        "run": run,
        "manifest": run.manifest,
        "theme": theme,
        "ticks": ticks,
        "symbols": define_symbols(),
        "sentence": answer.ratios or answer.headline,
        "answer": answer,
        "sentences": (answer.headline, *answer.details) if answer.ratios else answer.details,
        "verdict": conditions.judge_noise(run),
        "badges": conditions.list_badges(run),
        "opening": opening.draw_opening(run, shown),
        "when": _when(run.manifest),
        "asked": asked if isinstance(asked, list) else ["start", "density", "utilisation"],
        "roots": conditions.describe_roots(run),
        "distributions": distribution.draw_distributions(run, shown),
        **_describe_measures(run),
        "charges": _charges(run),
        "published": charges.list_sources(),
        "clock": conditions.describe_clock(run),
        "settings": _settings(run.manifest),
        "course": (*timeline.draw_timeline(run, logs), *noise.draw_noise(run)),
        "outcomes": tables.make_outcomes(run),
        "trials": trials.list_trials(run, logs),
        "unsuccessful": reasons[:_MOST_REASONS],
        "more_reasons": len(reasons) - _MOST_REASONS,
        "labels": {one.name: one.label for one in (*run.platforms, *run.again)},
        "platforms": [(one, list_facts(one.facts)) for one in run.platforms],
        "host": list_facts(get_mapping(run.manifest.get("host"))),
        "versions": list_facts(get_mapping(run.manifest.get("versions"))),
        "source": provenance.find_provenance(run),
    }


def _describe_measures(run: Run) -> dict[str, Any]:
    """Return each measure's pictures and tables, with what the text about them depends on."""
    return {
        "start": _section(
            run, "start", waterfall.draw_start(run), tables.list_each_alone(run, "start", tables.make_start_tables)
        ),
        "density": _section(
            run,
            "density",
            (*density.draw_density(run), *memory.draw_memory(run)),
            [
                *tables.list_each_alone(run, "density", density_tables.make_density_tables),
                *density_tables.make_density_notes(run),
            ],
        ),
        "metered": any("counted" in one.facts for one in run.platforms),
        "guests_broken_down": bool(memory.select_measured(run)),
        "utilisation": _section(
            run,
            "utilisation",
            (*load.draw_load(run), *percentiles.draw_percentiles(run), *samples.draw_samples(run)),
            tables.make_load_tables(run),
        ),
        "work": _section(
            run, "work", work.draw_work(run), [tables.make_work_table(run), tables.make_published_table(run)]
        ),
        "consolidation": _section(
            run,
            "consolidation",
            consolidation.draw_consolidation(run),
            consolidation_tables.make_consolidation_tables(run),
        ),
        "assumptions": servers.list_assumptions(run),
        "neighbours": _section(run, "neighbours", neighbours.draw_neighbours(run), neighbour_tables.make_tables(run)),
        "rungs": rungs.make_rung_tables(run, read_history()),
        "ladder": rungs.find_ladder_page(run.folder.path),
    }


def format_setting(value: object, scale: float = 1.0) -> str:
    """Return a setting as it was written: a number without needless digits, anything else as it is."""
    if isinstance(value, int | float) and abs(value) < 1e18:
        return f"{value * scale:g}"
    return str(value)[:200]


def dim_basis(text: str) -> Markup:
    """Return a text as markup in which what a figure rests on, in brackets after it, stands back."""
    return Markup(_BASIS.sub(r'<span class="basis">\g<0></span>', str(escape(text))))  # noqa: S704 # escaped before


def _when(manifest: Mapping[str, Any]) -> str:
    """Return when the run was, and how long it took."""
    if (began := parse_time(manifest.get("started"))) is None:
        return "at an unknown time"
    shown = f"{began.day} {began:%B %Y, %H:%M} UTC"
    try:
        ended = parse_time(manifest.get("finished"))
        took_s = (ended - began).total_seconds() if ended else 0.0
    except TypeError:  # one of them has no time zone
        took_s = 0.0
    if took_s <= 0:
        return shown
    return f"{shown}, took {took_s / 60:.0f} min" if took_s >= 90 else f"{shown}, took {took_s:.0f} s"


def _section(run: Run, measure: str, pictures: Iterable[Picture], found: Iterable[Table]) -> Section:
    measured = any(one.ok for one in count_outcomes(run) if one.measure == measure)
    return Section(tuple(pictures), tuple(table for table in found if table.rows), measured)


def _charges(run: Run) -> Section:
    found = tuple(table for table in tables.make_count_tables(run) if table.rows)
    return Section(tuple(prices.draw_ratios(run)), found, bool(found))


def _settings(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the text of the page speaks of, each empty when the manifest has it not."""
    settings = get_mapping(manifest.get("settings"))
    sections = {name: get_mapping(settings.get(name)) for name in _SETTINGS}
    return {"flat": list_facts(settings), **sections}
