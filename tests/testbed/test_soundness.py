"""What cannot be in a run folder is said, and counts for nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.analysis import read_run, select_values
from testbed.results import Metric, RunFolder, Trial
from testbed.soundness import list_faults, void_impossible


def start(number: int, ready: float, **more: object) -> Trial:
    return Trial(number, number, "container", "start", "ok", metrics=(Metric("ready", ready, "s"),), **more)  # type: ignore[arg-type]


def test_a_negative_duration_makes_a_trial_void(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run", {"run": "run"})
    for number, ready in enumerate((0.5, -3.0, 0.6), 1):
        folder.append(start(number, ready))
    run = read_run(folder)
    assert select_values(run, "start", "container", "ready") == (0.5, 0.6)
    assert run.trials[1].outcome == "void" and "ready is negative" in run.trials[1].reason


def test_what_may_be_negative_is_left_alone() -> None:
    memory = Trial(1, 1, "container", "density", "ok", metrics=(Metric("drop", -5.0, "bytes"),))
    failed = Trial(2, 2, "container", "start", "failed", "why", metrics=(Metric("ready", -1.0, "s"),))
    assert void_impossible((memory, failed)) == (memory, failed)


@pytest.mark.parametrize(
    ("started", "finished", "is_said"),
    [
        ("2026-03-02T00:00:00+00:00", "2026-03-01T00:00:00+00:00", True),
        ("2026-03-01T00:00:00+00:00", "2026-03-02T00:00:00+00:00", False),
        ("2026-03-02T00:00:00", "2026-03-01T00:00:00+00:00", False),
        ("yesterday", None, False),
    ],
)
def test_a_clock_that_was_set_back_is_said(started: str, finished: str | None, is_said: bool, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, {"started": started, "finished": finished})
    assert any("ended before it began" in fault for fault in list_faults(folder, ())) == is_said


def test_files_that_are_gone_are_said(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run", {"run": "run"})
    folder.write_samples("t001", ("a",), [(1,)])
    trials = [start(1, 0.5, samples="t001.csv"), *(start(number, 0.5, samples="no.csv") for number in range(2, 10))]
    (fault,) = list_faults(folder, [*trials, start(10, 0.5, histogram="no.hdr")])
    assert "trials 2, 3, 4, 5, 6 and 4 more" in fault
