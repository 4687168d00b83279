"""The measures by name, and what becomes of their trials: each is recorded when it ends, however it ends."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from types import MappingProxyType

from msgspec.structs import replace

from runtime.errors import PrerequisiteError, TestbedError, UsageError, WorkloadError
from testbed.host.noise import find_unattributed
from testbed.interruption import Interrupted
from testbed.measures import density, start, utilisation, work
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
    }
)
NAMES = tuple(MEASURES)

# A platform that failed in its first blocks is given up: each further one could take its whole timeout.
BLOCKS_TO_GIVE_UP = 2


def check_measures(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names as given. Raises UsageError for one that is no measure, or named twice."""
    unknown = [name for name in names if name not in MEASURES]
    if unknown or not names:
        raise UsageError(f"unknown measure {', '.join(unknown) or '(none)'}", f"known measures: {', '.join(NAMES)}")
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UsageError(f"measure {', '.join(twice)} is named twice", "name each once")
    return tuple(names)


def run_trials(context: RunContext, planned: PlannedTrial) -> None:
    """Do what is planned and record its trials.

    A trial in which the workload or the platform fails is recorded as failed, and so are the rest of its unit.
    An interruption is recorded and raised again. Raises PrerequisiteError and UsageError: they would befall every
    other trial, too.
    """
    done = 0
    what = f"{planned.measure} on {context.platforms[planned.platform].label}"
    number, left = context.pace.begin(planned), context.pace.left()
    context.progress(f"{number}: {what}{f', {left}' if left else ''}")
    if reason := find_reason_to_give_up(context.folder.trials(), planned.platform):
        context.progress(f"  {reason}")
        context.watch.pause()
        return _record_rest(context, planned, done, "failed", reason)
    context.watch.begin()
    try:
        with closing(MEASURES[planned.measure](context, planned)) as trials:
            for trial in trials:
                _record(context, trial)
                done += 1
    except (PrerequisiteError, UsageError):
        raise
    except TestbedError as error:
        context.progress(f"  failed: {error}")
        _record_rest(context, planned, done, "failed", error.message.splitlines()[0], error.hint)
    except (KeyboardInterrupt, SystemExit, Interrupted) as interruption:
        reason = f"{type(interruption).__name__} {interruption}".rstrip()
        context.folder.append(_unmeasured(planned, done, "interrupted", reason))
        raise


def _record(context: RunContext, trial: Trial) -> None:
    """Record a trial that ended, with what disturbed it and what its limits held back."""
    window = context.watch.end()
    disturbances = (*window.disturbances, *find_unattributed(trial.value("host_others"), window))
    for disturbance in disturbances:
        context.progress(f"  disturbed: {disturbance}")
    if (held_back := window.figures.get("throttled_periods", 0.0)) >= LEAST_HELD_BACK:
        context.progress(f"  its limit of processor time held it back in {held_back:.0%} of the periods")
    context.folder.append(replace(trial, window=window.figures, disturbances=disturbances))


def _record_rest(
    context: RunContext, planned: PlannedTrial, done: int, outcome: Outcome, reason: str, details: str = ""
) -> None:
    """Record the trials of ``planned`` from the ``done``-th on as ended without figures; the first may have run."""
    for index in range(done, len(planned.rates_per_s) or 1):
        trial = replace(_unmeasured(planned, index, outcome, reason), details=details)
        if index == done and context.watch.begun:
            _record(context, trial)
        else:
            context.folder.append(trial)


def _unmeasured(planned: PlannedTrial, index: int, outcome: Outcome, reason: str) -> Trial:
    parameters = {"rate_per_s": planned.rates_per_s[index]} if planned.rates_per_s else {}
    return Trial(planned.trial + index, planned.block, planned.platform, planned.measure, outcome, reason, parameters)


def find_reason_to_give_up(trials: Iterable[Trial], platform: str) -> str:
    """Return why a platform is not tried any more; empty as long as it is."""
    tried = [trial for trial in trials if trial.platform == platform]
    failed_blocks = {trial.block for trial in tried if trial.outcome == "failed"}
    if len(failed_blocks) < BLOCKS_TO_GIVE_UP or any(trial.outcome != "failed" for trial in tried):
        return ""
    return f"not tried: {platform} failed in its first {BLOCKS_TO_GIVE_UP} blocks"


def choose_exit_code(trials: Iterable[Trial]) -> int:
    """Return 0, or WorkloadError's code when all trials on some platform failed."""
    outcomes: dict[str, set[str]] = {}
    for trial in trials:
        outcomes.setdefault(trial.platform, set()).add(trial.outcome)
    return WorkloadError.exit_code if any(ended == {"failed"} for ended in outcomes.values()) else 0
