"""The answer: in sentences, as rows of a short table, and as JSON.

An emulated guest is not hardware virtualisation. Where one is among the platforms, the headline speaks of the others
only, the emulated figures follow under their label, and no ratio is drawn between the two.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, to_builtins

from reports import columns, conditions
from reports.quantities import LOAD, RULERS, START, Quantity
from testbed.analysis import (
    Platform,
    Ramp,
    Run,
    memory_parts,
    memory_slope,
    ramps,
    read_run,
    service_phases,
    start_phases,
    tallies,
    utilisation,
    values,
)
from testbed.intervals import Estimate, median_ratio
from testbed.results import RunFolder

_AS = {"container": "as containers", "vm": "as virtual machines"}
_STOPPED = {"cap": "the cap", "slo": "then the service level broke", "memory": "then memory was short"}
_RATIO = Quantity("ratio of medians", "")
_IN_TABLE = ("latency_p50", "latency_p99", "cpu_per_request", "host_utilisation")


class Answer(Struct, frozen=True):
    """``headline`` is the answer in a sentence, ``details`` are further sentences, ``warnings`` come before all."""

    headline: str
    details: tuple[str, ...]
    warnings: tuple[str, ...]


class Row(Struct, frozen=True):
    """One figure of the short table, as a text for each platform (by name) that has it."""

    measure: str
    figure: str
    cells: Mapping[str, str]


def answer(run_folder: Path) -> str:
    """The answer as text, a line a sentence: warnings, headline, details."""
    found = compose(read_run(RunFolder.open(run_folder)))
    return "\n".join((*found.warnings, found.headline, *found.details))


def compose(run: Run) -> Answer:
    """The answer from what was measured of it."""
    hardware = [platform for platform in run.platforms if not platform.emulated]
    told = [sentence for tell in (_start, _memory, _copies, _cost) if (sentence := tell(run, hardware))]
    emulated = [sentence for platform in run.emulated if (sentence := _emulated(run, platform))]
    headline, *details = told or [_nothing(run, bool(emulated))]
    return Answer(headline, (*details, *emulated), (*_emulation(run), *_ending(run), *conditions.notes(run)))


def _scenario(run: Run) -> str:
    return str(run.manifest.get("scenario") or "the application")


def _as(platform: Platform) -> str:
    plain = platform.label in (platform.name, f"{platform.name} (KVM)")
    return _AS[platform.name] if plain and platform.name in _AS else f"as {platform.label}"


def _start(run: Run, platforms: Sequence[Platform]) -> str:
    """The time to the first correct answer, the shortest first; with two platforms also their ratio."""
    ready = {one: start_phases(run, one.name).get("ready") for one in platforms}
    found = sorted(((one, estimate) for one, estimate in ready.items() if estimate), key=lambda pair: pair[1].value)
    if not found:
        return ""
    quantity = START["ready"]
    told = [f"{quantity.show(estimate.value)} {_as(one)}{quantity.basis(estimate)}" for one, estimate in found]
    sentence = f"From request to first correct answer, {_scenario(run)} took {_listed(told)}"
    if len(found) == 2:
        ratio = median_ratio(*(values(run, "start", one.name, "ready") for one, _ in reversed(found)))
        kind = "95 % interval " if ratio.is_interval else ""
        sentence += f", {_RATIO.show(ratio.value)} times as long ({kind}{_RATIO.beside(ratio) or 'one trial'}),"
    return f"{sentence} on {conditions.this_host(run)}."


def _memory(run: Run, platforms: Sequence[Platform]) -> str:
    """The memory that one more application takes."""
    quantity = RULERS["memory_cgroup"]
    slopes = [(one, memory_slope(ramps(run, one.name), "memory_cgroup")) for one in platforms]
    told = [f"{quantity.show(slope.value)} {_as(one)}{quantity.basis(slope)}" for one, slope in slopes if slope]
    return f"Each further copy of it took {_listed(told)}, by cgroup charge." if told else ""


def copies(found: Sequence[Ramp]) -> tuple[str, str]:
    """How many applications ran within the service level (of several ramps the least and the most), and why no more."""
    counts = sorted({ramp.applications for ramp in found})
    shown = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    reasons = dict.fromkeys(_STOPPED.get(ramp.reason.partition(":")[0], ramp.reason) for ramp in found)
    return shown, ", or ".join(reasons)


def _copies(run: Run, platforms: Sequence[Platform]) -> str:
    counts = [(one, *copies(found)) for one in platforms if (found := ramps(run, one.name))]
    told = [f"{count} {_as(one)} ({reason})" for one, count, reason in counts]
    return f"Copies that ran at once within the service level: {_listed(told)}." if told else ""


def _cost(run: Run, platforms: Sequence[Platform]) -> str:
    """What a request costs, at the highest rate that every one of the platforms has figures for."""
    found = {one: rates for one in platforms if (rates := utilisation(run, one.name))}
    shared = set.intersection(*(set(rates) for rates in found.values())) if found else set()
    if not shared:
        return ""
    rate = max(shared)
    told = []
    for name in ("cpu_per_request", "latency_p99"):
        of = [(one, rates[rate][name]) for one, rates in found.items() if name in rates[rate]]
        what = " of processor time" if name == "cpu_per_request" else ""
        told.append(_listed([f"{LOAD[name].show(estimate.value)}{what} {_as(one)}" for one, estimate in of]))
    if not all(told):
        return ""
    return f"At {rate:g} requests/s a request took {told[0]}; 99 % were answered within {told[1]}."


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def _emulated(run: Run, platform: Platform) -> str:
    """All figures of an emulated platform in a sentence of its own that begins with its label."""
    told = []
    if ready := start_phases(run, platform.name).get("ready"):
        told.append(f"first correct answer after {START['ready'].show(ready.value)}{START['ready'].basis(ready)}")
    found, quantity = ramps(run, platform.name), RULERS["memory_cgroup"]
    if slope := memory_slope(found, "memory_cgroup"):
        told.append(f"{quantity.show(slope.value)} for each further copy{quantity.basis(slope)}")
    if found:
        count, reason = copies(found)
        told.append(f"{count} at once ({reason})")
    for rate, figures in list(utilisation(run, platform.name).items())[-1:]:
        cost = [LOAD[name].show(figures[name].value) for name in ("cpu_per_request", "latency_p99") if name in figures]
        told += [f"at {rate:g} requests/s {' of processor time each and p99 '.join(cost)}"] if len(cost) == 2 else []
    return f"{platform.label}: {'; '.join(told)}." if told else ""


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


def table(run_folder: Path) -> list[Row]:
    """The rows of the short table; every one has a cell for each platform that has the figure."""
    return rows(read_run(RunFolder.open(run_folder)))


def rows(run: Run) -> list[Row]:
    """``table`` of a run that has been read."""
    starts = {one.name: start_phases(run, one.name) for one in run.platforms}
    found = [
        Row("start", quantity.title, _cells(starts, name, quantity.show, quantity.beside))
        for name, quantity in START.items()
    ]
    ramped = {one.name: ramps(run, one.name) for one in run.platforms}
    for name, quantity in RULERS.items():
        slopes = {one: {name: slope} for one, of in ramped.items() if (slope := memory_slope(of, name))}
        found.append(Row("density", f"a copy, {quantity.title}", _cells(slopes, name, quantity.show, quantity.beside)))
    found.append(
        Row(
            "density", "copies within the SLO", {one: "{} ({})".format(*copies(of)) for one, of in ramped.items() if of}
        )
    )
    loads = {one.name: utilisation(run, one.name) for one in run.platforms}
    for rate in sorted({rate for at in loads.values() for rate in at})[-1:]:
        at_rate = {one: at[rate] for one, at in loads.items() if rate in at}
        found += [
            Row(f"at {rate:g}/s", LOAD[name].title, _cells(at_rate, name, LOAD[name].show, LOAD[name].beside))
            for name in _IN_TABLE
        ]
    found.append(Row("trials", "ok / failed / void", _outcomes(run)))
    return [row for row in found if row.cells]


def _cells(
    found: Mapping[str, Mapping[str, Any]], name: str, show: Callable[[float], str], beside: Callable[[Any], str]
) -> dict[str, str]:
    cells = {}
    for one, figures in found.items():
        if name in figures:
            extra = beside(figures[name])
            cells[one] = show(figures[name].value) + (f" ({extra})" if extra else "")
    return cells


def _outcomes(run: Run) -> dict[str, str]:
    counts: dict[str, list[int]] = {}
    for tally in tallies(run):
        sums = counts.setdefault(tally.platform, [0, 0, 0])
        for index, count in enumerate((tally.ok, tally.failed, tally.void)):
            sums[index] += count
    return {one: " / ".join(map(str, sums)) for one, sums in counts.items()}


def print_answer(run_folder: Path) -> None:
    """Print the answer and the short table on standard output."""
    from rich.console import Console

    run = read_run(RunFolder.open(run_folder))
    found = compose(run)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    for warning in found.warnings:
        console.print(f"Note: {warning}", style="yellow", markup=False)
    console.print(found.headline, style="bold", markup=False)
    for sentence in found.details:
        console.print(sentence, markup=False)
    lines: list[columns.Line] = []
    measure = ""
    for row in rows(run):
        if row.measure != measure:
            lines.append(columns.Line(row.measure))
        measure = row.measure
        lines.append(columns.Line(f"  {row.figure}", row.cells))
    if run.trials:
        for part in columns.tables(lines, {one.name: one.label for one in run.platforms}, console.width):
            console.print(part)
            console.print()
        console.print("Medians, with 95 % intervals or, of fewer than six trials, the range.", style="dim")


def as_json(run_folder: Path) -> dict[str, Any]:
    """The answer and every estimate behind it, in base units (s, bytes, fractions), ready for ``json.dumps``."""
    run = read_run(RunFolder.open(run_folder))
    return {
        "run": run.manifest.get("run"),
        "scenario": run.manifest.get("scenario"),
        "status": run.manifest.get("status"),
        "answer": to_builtins(compose(run)),
        "conditions": conditions.as_json(run),
        "platforms": {one.name: _platform_json(run, one) for one in run.platforms},
        "folder": str(run.folder.path),
        "report": str(run.folder.path / "report.html"),
    }


def _platform_json(run: Run, platform: Platform) -> dict[str, Any]:
    services: dict[str, dict[str, object]] = {}
    for (service, name), estimate in service_phases(run, platform.name).items():
        services.setdefault(service, {})[name] = to_builtins(estimate)
    found = ramps(run, platform.name)
    slopes = {ruler: memory_slope(found, ruler) for ruler in RULERS}
    return {
        "label": platform.label,
        "emulated": platform.emulated,
        "trials": [to_builtins(tally) for tally in tallies(run) if tally.platform == platform.name],
        "start": _estimates_json(start_phases(run, platform.name)),
        "start_services": services,
        "memory_parts": _estimates_json(memory_parts(run, platform.name)),
        "density": {
            "applications": [ramp.applications for ramp in found],
            "stopped": [ramp.reason for ramp in found],
            "bytes_per_application": {name: to_builtins(slope) for name, slope in slopes.items() if slope},
        },
        "utilisation": [
            {"rate_per_s": rate, **_estimates_json(figures)}
            for rate, figures in utilisation(run, platform.name).items()
        ],
    }


def _estimates_json(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: to_builtins(estimate) for name, estimate in estimates.items()}
