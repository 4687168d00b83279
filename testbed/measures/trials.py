"""The measures by name, and what becomes of their trials: each is recorded when it ends, however it ends."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from types import MappingProxyType

from msgspec.structs import replace

from runtime.errors import PrerequisiteError, TestbedError, UsageError, WorkloadError
from testbed.host.noise import find_unattributed
from testbed.interruption import Interrupted
from testbed.levels import LEVELS
from testbed.measures import consolidation, density, neighbours, start, utilisation, work
from testbed.measures.context import RunContext
from testbed.measures.schedule import PlannedTrial
from testbed.results import LEAST_HELD_BACK, Outcome, Trial

# Measuring yields each trial as it ends; closing the generator undoes what it has started.
Measure = Callable[[RunContext, PlannedTrial], Generator[Trial, None, None]]

MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "start": start.measure,
        "density": density.measure,
        "utilisation": utilisation.measure,
        "work": work.measure,
        "neighbours": neighbours.measure,
        "consolidation": consolidation.measure,
    }
)
NAMES = tuple(MEASURES)


def check_measures(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names as given. Raises UsageError for one that is no measure, or named twice."""
    unknown = [name for name in names if name not in MEASURES]
    if unknown or not names:
        raise UsageError(f"unknown measure {', '.join(unknown) or '(none)'}", f"known measures: {', '.join(NAMES)}")
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UsageError(f"measure {', '.join(twice)} is named twice", "name each once")
    return tuple(names)


def run_trials(context: RunContext, planned: PlannedTrial) -> list[Trial]:
    """Do what is planned, record its trials, and return them.

    A trial in which the workload or the platform fails is recorded as failed, and so are the rest of its unit.
    An interruption is recorded and raised again. Raises PrerequisiteError and UsageError: they would befall every
    other trial, too.
    """
    done: list[Trial] = []
    context.watch.begin()
    try:
        with closing(MEASURES[planned.measure](context, planned)) as trials:
            for trial in trials:
                done.append(_record(context, planned, trial))
    except (PrerequisiteError, UsageError):
        raise
    except TestbedError as error:
        context.progress(f"  failed: {error}")
        reason, begun = error.message.splitlines()[0], len(done)
        for index in range(begun, planned.count):
            trial = replace(make_unmeasured(planned, index, "failed", reason), details=error.hint)
            if index == begun:
                done.append(_record(context, planned, trial))
            else:
                context.folder.append(trial)
                done.append(trial)
    except (KeyboardInterrupt, SystemExit, Interrupted) as interruption:
        reason = f"{type(interruption).__name__} {interruption}".rstrip()
        context.folder.append(make_unmeasured(planned, len(done), "interrupted", reason))
        raise
    return done


def _record(context: RunContext, planned: PlannedTrial, trial: Trial) -> Trial:
    """Record a trial that ended, with its place in the schedule, what disturbed it and what its limits held back."""
    # A neighbour that turns bad is there to make others wait.
    window = context.watch.end(pressed=trial.value("neighbour_alive") is not None)
    # What the platform beside it uses is no disturbance of a duet.
    unattributed = () if planned.beside else find_unattributed(trial.value("host_others"), window)
    disturbances = (*window.disturbances, *unattributed)
    for disturbance in disturbances:
        context.progress(f"  disturbed: {disturbance}")
    if (held_back := window.figures.get("throttled_periods", 0.0)) >= LEAST_HELD_BACK:
        context.progress(f"  its limit of processor time held it back in {held_back:.0%} of the periods")
    trial = place(planned, replace(trial, window=window.figures, disturbances=disturbances))
    context.folder.append(trial)
    return trial


def place(planned: PlannedTrial, trial: Trial) -> Trial:
    """Return the trial with what the schedule knows of it: whether it warms up, what it repeats and stands beside."""
    repeats = planned.repeats_of(trial.trial - planned.trial)
    return replace(trial, warmup=planned.warmup, repeats=repeats, beside=planned.beside)


def make_unmeasured(planned: PlannedTrial, index: int, outcome: Outcome, reason: str) -> Trial:
    """Return the ``index``-th trial of what is planned as one that ended without figures."""
    parameters = {LEVELS[planned.measure]: planned.levels[index]} if planned.levels else {}
    trial = Trial(planned.trial + index, planned.block, planned.platform, planned.measure, outcome, reason, parameters)
    return place(planned, trial)


def choose_exit_code(trials: Iterable[Trial]) -> int:
    """Return 0, or WorkloadError's code when all trials on some platform failed."""
    outcomes: dict[str, set[str]] = {}
    for trial in trials:
        outcomes.setdefault(trial.platform, set()).add(trial.outcome)
    return WorkloadError.exit_code if any(ended == {"failed"} for ended in outcomes.values()) else 0
