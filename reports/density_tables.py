"""The tables of density: memory of copies, every step of the ramps with its verdict, and where memory goes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reports.cells import Cell, Table
from reports.conditions import in_instruction_time
from reports.figures import memory
from reports.quantities import RULERS, Quantity
from reports.rows import describe_copies
from reports.tables import show_estimate
from testbed.analysis import Platform, Run
from testbed.ramps import (
    PARTS,
    VERDICTS,
    Ramp,
    Step,
    estimate_memory_of_copies,
    list_counts,
    select_ramps,
    summarise_steps,
)

# Ends of ramps that are listed, trials that are named for each, and how much of a reason.
_MOST_ENDS, _MOST_NAMED, _LONGEST_REASON = 60, 8, 400
# Steps of a platform that are listed.
_MOST_STEPS = 16
_START = Quantity("start of the newest", "s", most_decimals=4)
_LATENCY = Quantity("latency", "ms")


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
                rows.append(
                    (Cell(f"{title}, {quantity.title}"), *(show_estimate(quantity, each) for each in estimates))
                )
    rows.append((Cell("copies within the service level"), *(Cell(*describe_copies(of)) for of in by_platform.values())))
    certain = {one: [ramp.held for ramp in of if ramp.held is not None] for one, of in by_platform.items()}
    if any(certain.values()):
        shown = (_show_certain(of) for of in certain.values())
        rows.append((Cell("copies for which it held for sure"), *shown))
    caption = (
        "Memory of copies: the first one (median over ramps), and the mean of what each further one adds, over the"
        " steps of all ramps, with its 95 % interval from three steps on."
    )
    return [Table(caption, ("figure", *(one.label for one in by_platform)), tuple(rows) if by_platform else ())]


def _show_certain(counts: Sequence[int]) -> Cell:
    """Return with how many copies the service level held for sure, of several ramps the least and the most."""
    if not counts:
        return Cell("–")
    return Cell(f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}")


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
    ends_table = Table(f"Why ramps ended.{left_out}", ("ramps", "copies", "reason"), rows)
    return [_step_table(run), ends_table, _part_table(run)]


def _step_table(run: Run) -> Table:
    """Return each step's verdict and what it rests on; of many steps those at which something changed."""
    rows = []
    for one in run.platforms:
        ramps = select_ramps(run, one.name)
        for step in summarise_steps(ramps, pick_counts(ramps)):
            copies = f"{step.applications} {'copy' if step.applications == 1 else 'copies'}"
            rows.append(
                (
                    Cell(one.label, copies),
                    Cell(*_say_verdicts(step)),
                    Cell("–" if step.requests is None else str(step.requests), _say_windows(step)),
                    Cell("–" if step.slow is None else str(step.slow), _say_bounds(step)),
                    show_estimate(_START, step.start_s),
                    show_estimate(_LATENCY, step.p50_ms),
                    show_estimate(_LATENCY, step.p99_ms),
                )
            )
    caption = (
        f"Steps of the ramps; of more than {_MOST_STEPS} on a platform those where a verdict changed, doublings and the"
        " last; samples/ has all. Slower: requests above the service level's limit, and between which bounds their"
        " fraction lies (Clopper and Pearson, 95 % over all looks at a step; of several ramps the outermost). The step"
        " held when all of that is below 1 %, and broke when all is above. Medians over ramps. No p99 where a ramp has"
        " fewer than five requests beyond it."
    )
    timed = in_instruction_time(run)
    head = ("platform", "verdict", "requests", "slower", f"start of the newest{timed}", f"p50{timed}", f"p99{timed}")
    return Table(caption, head, tuple(rows))


def pick_counts(ramps: Sequence[Ramp]) -> tuple[int, ...]:
    """Return the numbers of copies whose steps are listed: all, or of many the doublings, those where some ramp's
    verdict is another than before, and the last."""
    counts = list_counts(ramps)
    if len(counts) <= _MOST_STEPS:
        return counts
    doublings = [count for count in counts if count & (count - 1) == 0]
    changes = dict.fromkeys(count for ramp in ramps for count in _list_changes(ramp))
    kept = sorted({*doublings[: _MOST_STEPS // 2], counts[-1], *sorted(changes)[-_MOST_STEPS // 2 :]})
    return tuple(count for count in kept if count in set(counts))


def _list_changes(ramp: Ramp) -> Iterable[int]:
    before = ""
    for count, verdict in zip(ramp.points.get("applications", ()), ramp.verdicts, strict=False):
        if verdict and verdict != before:
            before = verdict
            yield int(count)


def _say_verdicts(step: Step) -> tuple[str, str]:
    """Return what the ramps found, and how many of how many where they disagree."""
    counts = {verdict: step.verdicts.count(verdict) for verdict in VERDICTS if verdict in step.verdicts}
    if not counts:
        return "–", ""
    if len(counts) == 1:
        return next(iter(counts)), f"{step.ramps} ramps" if step.ramps > 1 else ""
    return ", ".join(f"{verdict} {count}" for verdict, count in counts.items()), f"of {step.ramps} ramps"


def _say_windows(step: Step) -> str:
    if step.windows is None:
        return ""
    return f"in {step.windows} window{'' if step.windows == 1 else 's'}"


def _say_bounds(step: Step) -> str:
    return f"{step.bounds[0]:.2%} to {step.bounds[1]:.2%}".replace("%", " %") if step.bounds else ""


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
            *(show_estimate(memory.describe_part(name), parts.get(name)) for parts in by_platform.values()),
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
