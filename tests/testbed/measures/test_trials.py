"""The registry of measures, and the decisions that the outcomes of trials lead to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from runtime.errors import PrerequisiteError, UsageError, WorkloadError
from testbed.host.noise import Observation, Watch
from testbed.measures import trials
from testbed.measures.context import RunContext
from testbed.measures.schedule import PlannedTrial
from testbed.measures.trials import run_trials
from testbed.results import Outcome, Trial

MakeContext = Callable[..., RunContext]


def trial(block: int, platform: str, outcome: Outcome) -> Trial:
    return Trial(block, block, platform, "start", outcome)


def test_unknown_measures_are_refused_and_the_known_ones_listed() -> None:
    assert trials.check_measures(("density", "start")) == ("density", "start")
    with pytest.raises(UsageError, match="measure start is named twice"):
        trials.check_measures(("start", "density", "start"))
    with pytest.raises(UsageError, match="unknown measure speed") as raised:
        trials.check_measures(("start", "speed"))
    assert "start, density, utilisation" in raised.value.hint
    with pytest.raises(UsageError, match="none"):
        trials.check_measures(())


def test_a_platform_that_never_worked_is_exit_code_6() -> None:
    assert trials.choose_exit_code([trial(1, "vm", "failed"), trial(2, "vm", "ok")]) == 0
    assert trials.choose_exit_code([trial(1, "vm", "failed"), trial(1, "container", "ok")]) == 6
    assert trials.choose_exit_code([trial(1, "vm", "void")]) == 0
    assert trials.choose_exit_code([]) == 0


def test_a_missing_prerequisite_ends_the_run(make_context: MakeContext, platform: Any) -> None:
    context = make_context()

    def start(instance: Any) -> None:
        raise PrerequisiteError("no space left")

    platform.start = start
    with pytest.raises(PrerequisiteError):
        run_trials(context, PlannedTrial(1, 1, "local", "start"))
    assert context.folder.trials() == ()


def test_platforms_get_the_same_arrivals_in_a_block(make_context: MakeContext) -> None:
    context = make_context()
    seeds = {context.arrival_seed(block, index) for block in range(5) for index in range(5)}
    assert len(seeds) == 25
    assert context.arrival_seed(1, 2) == context.arrival_seed(1, 2)


def test_what_disturbed_a_trial_is_told_and_recorded_with_it(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    context = replace(make_context(), progress=lines.append)
    seen = Observation({"foreign_cpu": 0.3, "throttled_periods": 0.5}, ("other programs used 30% (cc)",))
    monkeypatch.setattr(Watch, "end", lambda watch, pressed: seen)
    run_trials(context, PlannedTrial(1, 1, "local", "start"))
    (trial,) = context.folder.trials()
    assert (trial.outcome, trial.window, trial.disturbances) == ("ok", seen.figures, seen.disturbances)
    (line,) = [line for line in lines if "disturbed" in line]
    assert "other programs used 30% (cc)" in line
    assert any("50%" in line for line in lines)


def test_each_trial_has_the_figures_of_its_window(make_context: MakeContext) -> None:
    context = make_context()
    run_trials(context, PlannedTrial(1, 1, "local", "start"))
    (trial,) = context.folder.trials()
    parts = {name: value for name, value in trial.window.items() if name not in ("began_s", "took_s")}
    assert {"steal", "foreign_cpu"} <= set(parts) and all(0 <= value <= 1 for value in parts.values())
    assert 0 < trial.window["took_s"] < trial.window["began_s"]


def test_a_trial_that_failed_tells_what_disturbed_it_too(
    make_context: MakeContext, platform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context()

    def start(instance: Any) -> None:
        raise WorkloadError("it did not start")

    platform.start = start
    monkeypatch.setattr(Watch, "end", lambda watch, pressed: Observation({"steal": 0.5}, ("steal",)))
    run_trials(context, PlannedTrial(1, 1, "local", "utilisation", (10.0, 20.0)))
    first, second = context.folder.trials()
    assert (first.outcome, first.disturbances) == ("failed", ("steal",))
    assert (second.outcome, second.disturbances, second.window) == ("failed", (), {}), "it has never run"


def test_trials_are_recorded_with_their_place_in_the_schedule(make_context: MakeContext) -> None:
    context = make_context()
    planned = PlannedTrial(7, 3, "local", "utilisation", (20.0, 40.0), True, (5, 0), "other")
    done = run_trials(context, planned)
    assert done == list(context.folder.trials())
    assert [(trial.trial, trial.block, trial.repeats) for trial in done] == [(7, 3, 5), (8, 3, 0)]
    assert all(trial.warmup and trial.beside == "other" and not trial.counted for trial in done)


def test_a_rate_is_offered_alike_wherever_in_the_block_it_comes(make_context: MakeContext) -> None:
    context = make_context()
    assert context.rate_seed(3, 20.0) == context.arrival_seed(3, 1) and context.rate_seed(3, 40.0) == (
        context.arrival_seed(3, 0)
    )


def test_what_runs_beside_is_waited_for_before_the_request_and_before_each_rate(make_context: MakeContext) -> None:
    met: list[int] = []
    context = replace(make_context(), meet=lambda: met.append(len(met)))
    run_trials(context, PlannedTrial(1, 1, "local", "utilisation", (20.0, 40.0)))
    assert len(met) == 3
