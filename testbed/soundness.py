"""What cannot be in a run folder unless a clock was set, or the folder is damaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from testbed.results import RunFolder, Trial

_SECONDS = "s"


def void_impossible(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """Return the trials; one with a negative duration is void, whatever its outcome was: it counts for nothing."""
    return tuple(_void(trial) if _find_negative(trial) else trial for trial in trials)


def _find_negative(trial: Trial) -> str:
    return next((one.metric for one in trial.metrics if one.unit == _SECONDS and one.value < 0), "")


def _void(trial: Trial) -> Trial:
    if trial.outcome != "ok":
        return trial
    reason = f"{_find_negative(trial)} is negative: its clock was set back, or the folder is damaged"
    return replace(trial, outcome="void", reason=reason)


def list_faults(folder: RunFolder, trials: Iterable[Trial]) -> tuple[str, ...]:
    """Return what a reader must know of a run's soundness, a sentence each."""
    faults = []
    if _ended_before_it_began(folder.manifest):
        faults.append(
            "This run ended before it began: the host's clock was set meanwhile, so the times of day in it are wrong."
            " Its durations are not, for they are of a clock that nobody sets."
        )
    lost = [
        trial.trial
        for trial in trials
        if (trial.samples and folder.samples_path(trial) is None)
        or (trial.histogram and folder.histogram_path(trial) is None)
    ]
    if lost:
        shown = ", ".join(map(str, lost[:5])) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        faults.append(f"Files below samples/ that trials name are not there (trials {shown}): their part is missing.")
    return tuple(faults)


def _ended_before_it_began(manifest: Mapping[str, Any]) -> bool:
    try:
        began, ended = (datetime.fromisoformat(str(manifest.get(name))) for name in ("started", "finished"))
        return ended < began
    except (ValueError, TypeError):  # one is no time, or only one has a time zone
        return False
