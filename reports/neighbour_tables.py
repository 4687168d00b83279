"""The tables of a report on neighbours: what each did, on each platform, and what others have published."""

from __future__ import annotations

from collections.abc import Sequence

from reports.cells import Cell, Table
from reports.neighbours import (
    RATIOS,
    list_measured,
    list_published_beside,
    show_ratio,
)
from reports.quantities import INTERVALS, LOAD, MEBIBYTE, Quantity, format_number
from testbed.analysis import Platform, Run, list_compared
from testbed.interference import MEASURE, THROUGHPUT, Interference, count_broken_alone, describe_shared, estimate_alone

_TAKEN = {"neighbour_cpu": Quantity("", "s"), "neighbour_memory": Quantity("", "MiB", MEBIBYTE)}

_ENDED = {
    "neighbour_refused": "refused",
    "neighbour_killed": "killed",
    "guest_killed": "in the guest killed for want of memory",
}


def make_tables(run: Run) -> list[Table]:
    """Return a table a platform, with a row for each neighbour, the application alone before them; then the published
    figures."""
    platforms = list_compared(run, MEASURE)
    measured = list_measured(run, platforms)
    tables = [_platform_table(run, one, measured[one.name]) for one in platforms if one.name in measured]
    return [*tables, _published_table()] if tables else []


def _platform_table(run: Run, platform: Platform, effects: Sequence[Interference]) -> Table:
    names = [name for name in RATIOS if any(name in one.ratios for one in effects)]
    pooled = any(one.pooled is not None for one in effects)
    alone = estimate_alone(run, platform.name)
    first = (
        Cell("alone"),
        *(Cell(LOAD[name].show(alone[name].value), LOAD[name].qualify(alone[name])) if name in alone else Cell("–")
          for name in names),
        *([Cell("–")] if pooled else []),
        Cell("{} of {}".format(*count_broken_alone(run, platform.name))),
        Cell("–"),
        Cell("–"),
    )  # fmt: skip
    head = (
        "neighbour",
        *(RATIOS[name].title for name in names),
        *(["p99.9 of all blocks"] if pooled else []),
        "level broken",
        "survived",
        "what the neighbour did",
    )
    shared = describe_shared(run, platform.name)
    return Table(
        f"{platform.label}: the application beside each neighbour, relative to the same application alone in the same"
        f" block.{f' Both share {shared}.' if shared else ''} {INTERVALS}",
        head,
        (first, *(_row(one, names, pooled) for one in effects)),
    )


def _row(effect: Interference, names: Sequence[str], pooled: bool) -> tuple[Cell, ...]:
    of = f" of {effect.trials}"
    saturated = f"saturated in {effect.saturated}{of}" if effect.saturated else ""
    return (
        Cell(effect.case.name, effect.does),
        *(_ratio(effect, name, saturated) for name in names),
        *([Cell("–" if effect.pooled is None else f"x {RATIOS[names[0]].show(effect.pooled)}")] if pooled else []),
        Cell(f"{effect.broken}{of}"),
        Cell(f"{effect.survived}{of}", "; ".join(effect.lost)[:200]),
        Cell(*_describe_done(effect)),
    )


def _ratio(effect: Interference, name: str, saturated: str) -> Cell:
    if name not in effect.ratios:
        return Cell("–", saturated if name != THROUGHPUT else "")
    estimate = effect.ratios[name]
    below = (RATIOS[name].qualify(estimate), saturated if name != THROUGHPUT else "")
    return Cell(show_ratio(name, estimate), "; ".join(filter(None, below)))


def _describe_done(effect: Interference) -> tuple[str, str]:
    """Return what a neighbour took, and what became of it."""
    done = effect.done
    took = [quantity.show(done[name].value) for name, quantity in _TAKEN.items() if name in done]
    ended = [f"{_count(done[name].value)} {word}" for name, word in _ENDED.items() if name in done and done[name].value]
    together = "metered with the application" if "guest_killed" in done else "–"
    return ", ".join(took) or together, ", ".join(ended)


def _count(value: float) -> str:
    """Return a count, or the median of counts, which may be half of one."""
    return f"{value:g}" if value < 1000 else format_number(value)


def _published_table() -> Table:
    marks = list_published_beside()
    return Table(
        "Published: an application beside a neighbour that means harm, relative to the same alone. It was another"
        " machine, another year and other programs: what may be compared is how platforms differ, not the numbers."
        " Reported: as a reader of the work has it; the work itself was not at hand.",
        ("neighbour", "platform", "published", "in", "checked"),
        tuple(
            (
                Cell(mark.figure, mark.what),
                Cell(mark.platform),
                Cell(f"x {mark.value:g}"),
                Cell(f"{mark.citation.authors.split(',')[0]} et al. {mark.citation.year}", mark.citation.url),
                Cell(mark.checked, mark.via),
            )
            for mark in marks
        ),
    )
