"""The answer in sentences, and printed with the short table (reports.rows).

An emulated guest is not hardware virtualisation. Where one is among the platforms, the headline speaks of the others
only, the emulated figures follow under their label, and no ratio is drawn between the two.

A headline compares platforms that start at the same temperature. One that starts warm is set against nothing unless the
same kind of platform, started cold, stands beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from reports import (
    columns,
    comparisons,
    conditions,
    consolidation,
    neighbours,
    overview,
    pairs,
    temperatures,
    work,
)
from reports.quantities import INTERVALS, LOAD, RULERS, START, Quantity, sanitize
from reports.rows import describe_copies, make_rows
from testbed.analysis import (
    STEADY,
    Platform,
    Run,
    count_steady,
    estimate_start_phases,
    estimate_utilisation,
    find_saturated,
    list_faults,
    read_run,
    select_values,
)
from testbed.ramps import CopyMemory, estimate_memory_of_copies, select_ramps
from testbed.results import RunFolder
from testbed.statistics import Estimate, estimate_median_ratio

_AS = {"container": "as containers", "vm": "as virtual machines"}
_RATIO = Quantity("ratio of medians", "")
# Rulers of which a run has one, by whom its platforms' memory is counted.
_BY_RULER = {"memory_cgroup": "by cgroup charge", "memory_metered": "counted by its hypervisor"}
_COST = {"cpu_per_request", "latency_p50"}
# The percentiles by which slow requests are told, the one first that needs most requests, and how it is said.
_TAILS = {"latency_p99": "99 %", "latency_p90": "90 %", "latency_p50": "half"}


class Answer(Struct, frozen=True):
    """``headline`` is the answer in a sentence, ``details`` are further sentences, ``warnings`` come before all.

    ``ratios`` says all measures' ratios to the baseline in one sentence (reports.overview), with which the page opens;
    empty where nothing is compared.
    """

    headline: str
    details: tuple[str, ...]
    warnings: tuple[str, ...]
    ratios: str = ""


def describe_answer(run_folder: Path) -> str:
    """Return the answer as text, a line a sentence: warnings, headline, details."""
    composed = compose(read_run(RunFolder.open(run_folder)))
    return "\n".join((*composed.warnings, composed.headline, *composed.details))


def compose(run: Run) -> Answer:
    """Return the answer from what was measured of it."""
    sentences = [
        sentence
        for measure, describe in (
            ("start", _start), ("start", _steady), ("density", _memory), ("density", _copies), ("utilisation", _cost),
            ("neighbours", neighbours.describe),
            ("work", _work),
            ("consolidation", consolidation.describe_middle), ("consolidation", consolidation.describe_others),
            ("consolidation", consolidation.describe_idle),
        )
        if (sentence := temperatures.describe_each(run, measure, describe))
    ]  # fmt: skip
    emulated = [sentence for platform in run.emulated if (sentence := _figures(run, platform, temperatures.MEASURES))]
    alone = [
        sentence
        for platform, measures in temperatures.select_alone(run)
        if (sentence := _figures(run, platform, measures))
    ]
    headline, *details = sentences or [_nothing(run, bool(emulated))]
    notes = (
        *_emulation(run),
        *temperatures.list_notes(run),
        *_ending(run),
        *list_faults(run.folder, run.trials),
        *conditions.list_notes(run),
        *comparisons.list_notes(run),
    )
    ratios = overview.write_sentence(run, overview.make_overview(run))
    return Answer(
        headline, (*details, *comparisons.describe(run), *pairs.describe(run), *emulated, *alone), notes, ratios
    )


def _scenario(run: Run) -> str:
    return str(run.manifest.get("scenario") or "the application")


def _as(platform: Platform) -> str:
    plain = platform.label in (platform.name, f"{platform.name} (KVM)")
    return _AS[platform.name] if plain and platform.name in _AS else f"as {platform.label}"


def _start(run: Run, platforms: Sequence[Platform]) -> str:
    """Return the time to the first correct answer, the shortest first; with two platforms also their ratio."""
    ready = {one: estimate_start_phases(run, one.name).get("ready") for one in platforms}
    estimates = sorted(((one, estimate) for one, estimate in ready.items() if estimate), key=lambda pair: pair[1].value)
    if not estimates:
        return ""
    quantity = START["ready"]
    parts = [f"{quantity.show(estimate.value)} {_as(one)}{quantity.basis(estimate)}" for one, estimate in estimates]
    sentence = f"From request to first correct answer, {_scenario(run)} took {_listed(parts)}"
    if len(estimates) == 2 and min(estimate.low for _, estimate in estimates) > 0:
        ratio = estimate_median_ratio(
            *(select_values(run, "start", one.name, "ready") for one, _ in reversed(estimates))
        )
        kind = "95 % interval " if ratio.is_interval else ""
        sentence += f", {_RATIO.show(ratio.value)} times as long ({kind}{_RATIO.qualify(ratio) or 'one trial'}),"
    return f"{sentence} {conditions.this_host(run)}."


def _steady(run: Run, platforms: Sequence[Platform]) -> str:
    """Return when latency was steady, and in how many trials it was not within the time that it was watched."""
    parts = []
    for one in platforms:
        estimate, (count, watched) = estimate_start_phases(run, one.name).get(STEADY), count_steady(run, one.name)
        never = f"within its window in {watched - count} of {watched} trials"
        if estimate and watched:
            after = f"steady after {START[STEADY].show(estimate.value)} {_as(one)}{START[STEADY].basis(estimate)}"
            parts.append(f"{after} and not {never}" if count < watched else after)
        elif watched:
            parts.append(f"not steady {never} {_as(one)}")
    clock = conditions.in_instruction_time(run)
    return f"Since the request, latency was {_listed(parts)}{clock}." if parts else ""


def _memory(run: Run, platforms: Sequence[Platform]) -> str:
    """Return the memory that the first application takes, and that each further one adds."""
    sentences = []
    for ruler, how in _BY_RULER.items():
        memory = [(one, estimate_memory_of_copies(run, one.name, ruler)) for one in platforms]
        with_copies = [(one, of) for one, of in memory if of]
        if with_copies:
            first = _listed([f"{RULERS[ruler].show(of.first.value)} {_as(one)}" for one, of in with_copies])
            further = _listed([f"{_further(of)} {_as(one)}{_basis(of)}" for one, of in with_copies if of.further])
            each = f", each further one {further}" if further else ""
            sentences.append(f"The first copy of it took {first}{each}, {how}.")
    return " ".join(sentences)


def _further(memory: CopyMemory) -> str:
    return RULERS["memory_cgroup"].show(memory.further.value) if memory.further else ""


def _basis(memory: CopyMemory) -> str:
    return RULERS["memory_cgroup"].basis(memory.further) if memory.further else ""


def _copies(run: Run, platforms: Sequence[Platform]) -> str:
    counts = [(one, *describe_copies(of)) for one in platforms if (of := select_ramps(run, one.name))]
    parts = [f"{count} {_as(one)} ({reason})" for one, count, reason in counts]
    return f"Copies that ran at once within the service level: {_listed(parts)}." if parts else ""


def _cost(run: Run, platforms: Sequence[Platform]) -> str:
    """Return what a request costs, at the highest rate that all of the platforms keep up with, and who is saturated
    when."""
    by_platform = {one: rates for one in platforms if (rates := estimate_utilisation(run, one.name))}
    keeping_up = [{rate for rate, of in rates.items() if _COST.issubset(of)} for rates in by_platform.values()]
    shared = set.intersection(*keeping_up) if keeping_up else set()
    sentences = []
    if shared:
        rate, clock = max(shared), conditions.in_instruction_time(run)
        tail = _tail([rates[rate] for rates in by_platform.values()])
        cpu, slow = (
            _listed(
                [f"{LOAD[name].show(rates[rate][name].value)}{what} {_as(one)}" for one, rates in by_platform.items()]
            )
            for name, what in (("cpu_per_request", " of processor time"), (tail, ""))
        )
        sentences.append(
            f"At {rate:g} requests/s a request took {cpu}; {_TAILS[tail]} were answered within {slow}{clock}."
        )
    sentences += [f"{_saturation(run, one)}." for one in by_platform if find_saturated(run, one.name)]
    return " ".join(sentences)


def _tail(figures: Sequence[Mapping[str, Estimate]]) -> str:
    """Return the highest percentile that all of these have."""
    return next(name for name in _TAILS if all(name in of for of in figures))


def _saturation(run: Run, platform: Platform) -> str:
    """Say from which rate a platform could not keep up."""
    rate, (behind, of) = next(iter(find_saturated(run, platform.name).items()))
    answered = estimate_utilisation(run, platform.name)[rate].get("achieved_rate")
    shown = f", where it answered {LOAD['achieved_rate'].show(answered.value)}" if answered else ""
    return f"It was saturated {_as(platform)} at {rate:g} requests/s (in {behind} of {of} trials){shown}"


def _work(run: Run, platforms: Sequence[Platform]) -> str:
    """Return the first figure of the application's work, and the processor time that all of the work took."""
    parts = []
    for quantity, of in work.list_leading(run, {one.name: one for one in platforms}):
        estimates = [(one, of[one.name].estimate) for one in platforms if one.name in of]
        shown = [f"{quantity.show(found.value)} {_as(one)}{quantity.basis(found)}" for one, found in estimates]
        parts.append(f"{quantity.title} {_listed(shown)}")
    return f"The work of {_scenario(run)}: {'; '.join(parts)}{conditions.in_instruction_time(run)}." if parts else ""


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def _figures(run: Run, platform: Platform, measures: Sequence[str]) -> str:
    """Return the figures of a platform that is not compared in a sentence of its own that begins with its label."""
    parts = []
    start = estimate_start_phases(run, platform.name) if "start" in measures else {}
    if ready := start.get("ready"):
        parts.append(f"first correct answer after {START['ready'].show(ready.value)}{START['ready'].basis(ready)}")
    if steady := start.get(STEADY):
        parts.append(f"latency steady after {START[STEADY].show(steady.value)}")
    ramps_of = select_ramps(run, platform.name) if "density" in measures else ()
    if ramps_of and (memory := estimate_memory_of_copies(run, platform.name, "memory_cgroup")):
        parts.append(f"{RULERS['memory_cgroup'].show(memory.first.value)} for the first copy")
        parts += [f"{_further(memory)} for each further one{_basis(memory)}"] if memory.further else []
    if ramps_of:
        count, reason = describe_copies(ramps_of)
        parts.append(f"{count} at once ({reason})")
    loads = estimate_utilisation(run, platform.name) if "utilisation" in measures else {}
    keeps_up = [(rate, of) for rate, of in loads.items() if _COST.issubset(of)]
    for rate, of in keeps_up[-1:]:
        tail = _tail([of])
        cost = [LOAD[name].show(of[name].value) for name in ("cpu_per_request", tail)]
        parts.append(f"at {rate:g} requests/s {f' of processor time each and {tail[-3:]} '.join(cost)}")
    if loads and (too_high := find_saturated(run, platform.name)):
        parts.append(f"saturated at {min(too_high):g} requests/s")
    if effects := neighbours.list_measured(run, (platform,)).get(platform.name):
        worst = neighbours.describe_platform(effects, neighbours.choose_tail(effects))
        shared = neighbours.describe_boundary(run, platform.name)
        parts.append(f"the worst neighbour{shared} {worst}, relative to alone")
    for quantity, figures in work.list_leading(run, {platform.name: platform}) if "work" in measures else ():
        parts.append(f"{quantity.title} {quantity.show(figures[platform.name].estimate.value)}")
    parts += consolidation.describe_alone(run, platform) if "consolidation" in measures else []
    return f"{platform.label}: {'; '.join(parts)}{conditions.in_instruction_time(run)}." if parts else ""


def _nothing(run: Run, emulated: bool) -> str:
    if emulated:
        return f"This run has no figure of {_scenario(run)} on hardware, only emulated ones."
    if not run.trials:
        return f"There is no answer for {_scenario(run)}: no trial has ended."
    reasons = dict.fromkeys(trial.reason for trial in run.trials if trial.reason)
    why = f" First reason: {next(iter(reasons))}" if reasons else ""
    return f"There is no answer for {_scenario(run)}: none of {len(run.trials)} trials succeeded.{why}"


def _emulation(run: Run) -> list[str]:
    labels = ", ".join(platform.label for platform in run.emulated)
    if not labels:
        return []
    return [
        f"Emulated, no hardware virtualisation: {labels}. Every instruction of such a guest is translated in software."
        " Its figures show the cost of emulation on this host; they do not answer how virtual machines compare."
    ]


def _ending(run: Run) -> list[str]:
    status = run.manifest.get("status")
    if status == "finished":
        return []
    how = {"interrupted": "was interrupted", "failed": "was ended by an error"}.get(str(status), "did not end")
    return [f"This run {how}: its figures are of the {len(run.trials)} trials that are recorded."]


def print_answer(run_folder: Path) -> None:
    """Print the answer and the short table on standard output."""
    from rich.console import Console

    run = read_run(RunFolder.open(run_folder))
    composed = compose(run)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    for warning in composed.warnings:
        console.print(sanitize(f"Note: {warning}"), style="yellow", markup=False)
    console.print(sanitize(composed.headline), style="bold", markup=False)
    for sentence in composed.details:
        console.print(sanitize(sentence), markup=False)
    lines: list[columns.Line] = []
    measure = ""
    for row in make_rows(run):
        if row.measure != measure:
            lines.append(columns.Line(row.measure))
        measure = row.measure
        lines.append(columns.Line(f"  {row.figure}", row.cells))
    unit = conditions.INSTRUCTION_TIME if run.instruction_time else ""
    if run.trials:
        for part in columns.make_tables(lines, {one.name: one.label for one in run.platforms}, console.width, unit):
            console.print(part)
            console.print()
        console.print(INTERVALS, style="dim")
        if clock := conditions.describe_clock(run):
            console.print(clock, style="dim")
