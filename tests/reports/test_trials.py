"""The list of trials: every one of a small run; of a large one some of each outcome, with links to their data."""

from __future__ import annotations

from typing import Any

from reports.trials import list_trials
from testbed.analysis import read_run
from testbed.results import Metric, RunFolder, Trial

WriteRun = Any


def test_every_trial_of_a_small_run_is_listed_with_its_logs(write_run: WriteRun) -> None:
    failed = Trial(900, 90, "vm", "utilisation", "failed", "refused", {"rate_per_s": 50.0}, disturbances=("noise",))
    run = read_run(RunFolder.open(write_run(starts=1, ramps=1, blocks=1, extra=[failed])))
    found = list_trials(run, {900: ["logs/t900-web.log"]})
    assert found.left_out == 0 and len(found.lines) == len(run.trials)
    last = found.lines[-1]
    assert (last.what, last.outcome, last.figure, last.noise, last.ok) == (
        "utilisation at 50/s", "failed", "refused", "noise", False,
    )  # fmt: skip
    assert last.links == (("t900-web.log", "logs/t900-web.log"),)
    assert any(line.figure.startswith("12 copies; cap") and line.links for line in found.lines)
    assert any(line.figure.endswith("of CPU a request") for line in found.lines)


def test_of_a_large_run_some_of_each_outcome_are_listed(write_run: WriteRun) -> None:
    extra = [
        Trial(n, n, "container", "start", "failed" if n % 50 == 0 else "ok", "", {}, (Metric("ready", 1.0, "s"),))
        for n in range(1, 3001)
    ]
    extra.append(Trial(3001, 1, "container", "start", "ok", metrics=(Metric("ready", 1.0, "s"),), warmup=True))
    run = read_run(RunFolder.open(write_run(platforms=("container",), starts=0, ramps=0, blocks=0, extra=extra)))
    found = list_trials(run, {})
    assert len(found.lines) == 120 and found.left_out == 2881
    assert sum(not line.ok for line in found.lines) == 60
    assert found.lines[-1].outcome == "ok, warm-up" and not found.lines[-1].ok
