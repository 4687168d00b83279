"""The ladder as one HTML page that needs nothing else; the same record always gives the same bytes."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from reports import theme
from reports.cells import Cell, Table, make_text_table
from reports.figures import ticks
from reports.figures.marks import define_symbols
from reports.ladder import figures, wording
from reports.ladder.view import EXPLAINED, QUANTITIES, Subject, Tally, View
from reports.templating import make_environment
from testbed.ladder.model import Feature, Ladder
from testbed.probes.model import VERDICTS, Outcome, Probe
from testbed.rungs.model import FEATURES, Explained, Rung, Statement
from testbed.rungs.walls import ALWAYS_THERE

# Columns of one table of features: more would not fit beside each other.
_FEATURES_EACH = 6
_SMALL = ("memory_bytes", "syscall_ns", "fork_us", "round_trip_us")
# Findings that the page opens with; the others are folded.
_SHOWN_FINDINGS = 6
# A plan's step is quoted up to so many letters.
_MOST_LETTERS = 160


class ClassCell(Struct, frozen=True):
    """How a class of probes fared on a rung: ``level`` from 0 to 4, by how much of it was blocked."""

    kind: str
    subject: str
    text: str
    words: str
    level: int
    leaked: bool


class ProbeRow(Struct, frozen=True):
    """A probe, with what came of it on each subject; None where it was not tried."""

    probe: Probe
    outcomes: tuple[Outcome | None, ...]


class ProbeTable(Struct, frozen=True):
    """The probes of a class."""

    kind: str
    title: str
    words: str
    rows: tuple[ProbeRow, ...]


class Known(Struct, frozen=True):
    """Findings of a rung that have one reason: what each probe came to, and why that is what is to be expected."""

    subject: Subject
    outcomes: tuple[tuple[Outcome, Probe], ...]
    explained: Explained


class Said(Struct, frozen=True):
    """What the maker of a rung said of some probes: ``verb`` is whether he forbids, permits or leaves them."""

    verb: str
    statement: Statement


class Story(Struct, frozen=True):
    """A rung for the list of all: as what it was run, if it was, what of it was ``missing`` and why, and its plan."""

    rung: Rung
    subject: Subject | None
    missing: tuple[str, ...]
    tally: Tally
    plan: tuple[tuple[str, str, str], ...]
    said: tuple[Said, ...]
    features: tuple[Feature, ...]


def render_page(view: View) -> str:
    """Render the page."""
    ladder = view.ladder
    small = [figures.draw_price(view, metric, wide=False) for metric in _SMALL]
    prices = [figures.draw_price(view, "start_s", wide=True), *small]
    return make_environment(lstrip_blocks=True).get_template("ladder.html.j2").render(
        theme=theme,
        ticks=ticks,
        symbols=define_symbols(),
        ladder=ladder,
        view=view,
        headline=wording.conclude(view),
        shown=_SHOWN_FINDINGS,
        findings=[wording.describe_finding(view, one) for one in view.findings if view.explain(one) is None],
        known=list_known(view),
        always=ALWAYS_THERE,
        timelines=figures.draw_timelines(view.history.rungs, frozenset(one.name for one in view.subjects)),
        stories=[make_story(view, rung) for rung in sorted(view.history.rungs, key=lambda one: (one.year, one.name))],
        features=list_feature_groups(),
        sides=figures.SIDES,
        rungs=[one for one in view.history.rungs if one.cells],
        numbers={source: number for number, source in enumerate(view.history.sources, 1)},
        sources=view.history.sources,
        wording=wording,
        verdicts=VERDICTS,
        classes=make_class_rows(view),
        tables=[make_probe_table(view, kind) for kind in view.kinds],
        prices=[one for one in prices if one is not None],
        costs=make_cost_table(view),
        parts=figures.draw_parts(view),
        namespaces=make_namespace_table(view),
        walls=make_wall_table(view),
        unpressed=view.list_unpressed(),
        provenance=list_provenance(ladder),
    )  # fmt: skip


def list_provenance(ladder: Ladder) -> list[tuple[str, object]]:
    """Return what was measured on, by which checkout and which versions: names and values."""
    source = dict(ladder.source)
    commit = source.get("commit")
    checkout = {"commit": f"{commit}{', with changes' if source.get('dirty') else ''}"} if commit else {}
    return [(name, value) for part in (ladder.host, checkout, ladder.versions) for name, value in part.items() if value]


def list_known(view: View) -> list[Known]:
    """Return the findings of which the reason is known, those of a rung that have the same one together."""
    of: dict[tuple[str, Explained], list[tuple[Outcome, Probe]]] = {}
    for one in view.findings:
        if (explained := view.explain(one)) is not None:
            of.setdefault((one.rung, explained), []).append((one, view.probes[one.probe]))
    subjects = {one.name: one for one in view.subjects}
    return [Known(subjects[rung], tuple(those), explained) for (rung, explained), those in of.items()]


def list_feature_groups() -> list[tuple[str, ...]]:
    """Return the features, as many as fit beside each other in each group."""
    return [FEATURES[at : at + _FEATURES_EACH] for at in range(0, len(FEATURES), _FEATURES_EACH)]


def make_story(view: View, rung: Rung) -> Story:
    """Return what is told of a rung."""
    subject = next((one for one in view.subjects if one.name == rung.name), None)
    missing = tuple(one.words for one in view.ladder.missing if one.rung == rung.name)
    plan = tuple(
        (step.step[:_MOST_LETTERS], step.part, f"{median_us:.0f}") for step, median_us in view.steps_of(rung.name)
    )
    features = tuple(one for one in view.ladder.features if one.rung == rung.name and one.feature in FEATURES)
    kinds = (("forbids", rung.forbids), ("permits", rung.permits), ("leaves open", rung.leaves))
    said = tuple(Said(verb, one) for verb, statements in kinds for one in statements)
    return Story(rung, subject, missing, view.tally(rung.name), plan, said, features)


def make_class_rows(view: View) -> list[tuple[Subject, Tally, list[ClassCell]]]:
    """Return the matrix of rungs and classes: a row a subject, with its sums and a cell a class."""
    return [
        (one, view.tally(one.name), [_make_class_cell(view, one, kind) for kind in view.kinds])
        for one in view.subjects
        if view.tally(one.name).verdicts
    ]


def _make_class_cell(view: View, subject: Subject, kind: str) -> ClassCell:
    tally = view.tally(subject.name, kind)
    said = ", ".join(f"{count} {verdict}" for verdict, count in tally.verdicts.items()) or "not tried"
    words = f"{subject.label}, {wording.name_class(kind)}: {said}"
    level = round(4 * tally["blocked"] / tally.tried) if tally.tried else 0
    return ClassCell(kind, subject.name, wording.show_counts(tally), words, level, tally["leaked"] > 0)


def make_probe_table(view: View, kind: str) -> ProbeTable:
    """Return the probes of a class, each with its outcomes in the order of the subjects."""
    names = [one.name for one in view.subjects if view.tally(one.name).verdicts]
    probes = sorted({probe for _, probe in view.outcomes if view.probes[probe].kind == kind})
    rows = tuple(
        ProbeRow(view.probes[probe], tuple(view.outcomes.get((name, probe)) for name in names)) for probe in probes
    )
    return ProbeTable(kind, wording.name_class(kind), wording.CLASSES.get(kind, ""), rows)


def make_cost_table(view: View) -> Table | None:
    """Return what each subject costs, with intervals; None where nothing is on record."""
    metrics = [metric for metric in QUANTITIES if any((one.name, metric) in view.costs for one in view.subjects)]
    priced = [one for one in view.subjects if any((one.name, metric) in view.costs for metric in metrics)]
    if not priced:
        return None
    rows = tuple((Cell(one.label), *(_make_cost_cell(view, one.name, metric) for metric in metrics)) for one in priced)
    explained = "; ".join(f"{QUANTITIES[metric].title}: {EXPLAINED[metric]}" for metric in metrics)
    caption = f"Medians with 95 % intervals or, of fewer than six trials, the range. {explained}."
    return Table(caption, ("", *(QUANTITIES[metric].title for metric in metrics)), rows)


def _make_cost_cell(view: View, name: str, metric: str) -> Cell:
    estimate = view.costs.get((name, metric))
    if estimate is None:
        return Cell("–")
    return Cell(QUANTITIES[metric].show(estimate.value), QUANTITIES[metric].qualify(estimate))


def make_namespace_table(view: View) -> Table | None:
    """Return what each kind of namespace costs this kernel by itself; None where that is not on record."""
    steps = view.steps_of("")
    if not steps:
        return None
    rows = [(one.step, f"{took:.0f} µs", f"{min(one.values_us):.0f}–{max(one.values_us):.0f}") for one, took in steps]
    caption = "A new process with one new namespace, or none: what this kernel takes for the clone alone."
    return make_text_table(caption, ("", "median", "range"), rows)


def make_wall_table(view: View) -> Table | None:
    """Return who was hurt by each attack on resources; None where none was tried."""
    if not view.attacks:
        return None
    names = {one.rung for one in view.ladder.pressures}
    subjects: Sequence[Subject] = [one for one in view.subjects if one.name in names]
    rows = []
    for one in subjects:
        cells = [Cell(one.label)]
        for attack in view.attacks:
            pressure = view.pressures_of(attack).get(one.name)
            cells.append(
                Cell("held" if pressure.held else "HURT", wording.describe_pressure(pressure))
                if pressure
                else Cell("–")
            )
        rows.append(tuple(cells))
    head = ("", *map(wording.name_attack, view.attacks))
    caption = (
        "Held: a neighbour of the same kind still did at least half of its work while this was going on."
        " Refused or killed is who took too much."
    )
    return Table(caption, head, tuple(rows))
