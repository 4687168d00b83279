"""A run's answer as data, ready for ``json.dumps``: all that the report says. docs/run-folder.md describes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from reports import comparisons, conditions, consolidation, overview, temperatures
from reports.quantities import RULERS
from reports.rows import make_rows
from reports.summary import compose
from testbed.analysis import (
    Platform,
    Run,
    count_outcomes,
    count_steady,
    estimate_held_back,
    estimate_service_phases,
    estimate_start_counts,
    estimate_start_extras,
    estimate_start_phases,
    estimate_utilisation,
    estimate_work,
    find_saturated,
    list_compared,
    read_run,
)
from testbed.interference import describe_shared, estimate_alone, estimate_interference
from testbed.pairs import list_noise_floors
from testbed.ramps import (
    estimate_memory_of_copies,
    estimate_memory_parts,
    list_counts,
    select_parts,
    select_ramps,
    summarise_steps,
)
from testbed.results import RunFolder
from testbed.statistics import Estimate

# Raised when a reader of the version before would read the document wrong.
SCHEMA = "testbed-answer/1"
# What the manifest says of what was run, how, and on what.
_MADE_OF = (
    "command", "started", "finished", "quick", "seed", "measures", "settings", "design", "images", "seccomp",
    "root_driver", "source", "versions", "host", "machine",
)  # fmt: skip


def as_json(run_folder: Path) -> dict[str, Any]:
    """Return the answer and every estimate behind it, in base units (s, bytes, fractions), ready for ``json.dumps``."""
    run = read_run(RunFolder.open(run_folder))
    return {
        "schema": SCHEMA,
        "run": run.manifest.get("run"),
        "scenario": run.manifest.get("scenario"),
        "status": run.manifest.get("status"),
        "clock": "instructions" if run.instruction_time else "host",
        "answer": to_builtins(compose(run)),
        "overview": [_measure_json(measure) for measure in overview.make_overview(run).measures],
        "table": [to_builtins(row) for row in make_rows(run)],
        "conditions": conditions.as_json(run),
        "comparisons": comparisons.as_json(run),
        "consolidation": consolidation.as_json(run),
        "noise_floors": to_builtins(list_noise_floors(run)),
        "made_of": _replace_infinite({name: run.manifest.get(name) for name in _MADE_OF}),
        "platforms": {one.name: _platform_json(run, one) for one in run.platforms},
        "folder": str(run.folder.path),
        "report": str(run.folder.path / "report.html"),
    }


def _measure_json(measure: overview.Measure) -> dict[str, Any]:
    """Return a column of the report's first picture: of each platform its estimate, the ratio to the baseline, and the
    verdict."""
    fields = ("estimate", "ratio", "ratio_span", "is_baseline", "verdict", "note")
    return {
        "measure": measure.name,
        "title": measure.head,
        "rate_per_s": measure.rate_per_s,
        "noise_floor": measure.floor,
        "platforms": {
            name: {field: to_builtins(getattr(figure, field)) for field in fields}
            for name, figure in measure.figures.items()
        },
        "absent": dict(measure.absent),
    }


def _platform_json(run: Run, platform: Platform) -> dict[str, Any]:
    services: dict[str, dict[str, object]] = {}
    for (service, name), estimate in estimate_service_phases(run, platform.name).items():
        services.setdefault(service, {})[name] = to_builtins(estimate)
    of = select_ramps(run, platform.name)
    memory = {ruler: estimate_memory_of_copies(run, platform.name, ruler) for ruler in RULERS}
    return {
        "label": platform.label,
        "emulated": platform.emulated,
        "temperature": platform.temperature,
        "compared": {measure: platform in list_compared(run, measure) for measure in temperatures.MEASURES},
        "trials": [to_builtins(tally) for tally in count_outcomes(run) if tally.platform == platform.name],
        "start": _estimates_json(estimate_start_phases(run, platform.name)),
        "start_counts": _estimates_json(estimate_start_counts(run, platform.name)),
        "start_extras": _estimates_json(estimate_start_extras(run, platform.name)),
        "steady": dict(zip(("trials", "of"), count_steady(run, platform.name), strict=True)),
        "start_services": services,
        "held_back": {part: to_builtins(held) for part, held in estimate_held_back(run, platform.name).items()},
        "facts": _replace_infinite(platform.facts),
        "memory_parts": _estimates_json(estimate_memory_parts(run, platform.name)),
        "density": {
            "applications": [ramp.applications for ramp in of],
            "stopped": [ramp.reason for ramp in of],
            "bytes": {name: to_builtins(held) for name, held in memory.items() if held},
            "held": [ramp.held for ramp in of if ramp.held is not None],
            "steps": to_builtins(summarise_steps(of, list_counts(of))),
            "parts": to_builtins(select_parts(run, platform.name)),
            "ramps": [{"trial": ramp.trial, "points": _finite(ramp.points)} for ramp in of],
        },
        "utilisation": [
            {"rate_per_s": rate, "saturated": rate in find_saturated(run, platform.name), **_estimates_json(figures)}
            for rate, figures in estimate_utilisation(run, platform.name).items()
        ],
        "work": to_builtins(estimate_work(run, platform.name)),
        "neighbours": {
            "shared": describe_shared(run, platform.name),
            "alone": _estimates_json(estimate_alone(run, platform.name)),
            "beside": [
                {"name": one.case.name, **to_builtins(one)} for one in estimate_interference(run, platform.name)
            ],
        },
    }


def _estimates_json(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: to_builtins(estimate) for name, estimate in estimates.items()}


def _replace_infinite(value: Any) -> Any:
    """Return nested data without the numbers that JSON has no word for."""
    if isinstance(value, Mapping):
        return {str(key): _replace_infinite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replace_infinite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _finite(points: Mapping[str, Sequence[float]]) -> dict[str, list[float | None]]:
    """Return columns of samples; what is no number has none in JSON either."""
    return {name: [value if math.isfinite(value) else None for value in column] for name, column in points.items()}
