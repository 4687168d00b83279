"""What becomes of trials: only those that are ok are averaged, all are counted."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from testbed import analysis
from testbed.analysis import read_run
from testbed.results import Metric, Outcome, RunFolder, Trial


def _folder(base: Path, *trials: Trial) -> RunFolder:
    platforms = {"container": {"label": "container", "emulated": False, "kernel": "6.1"}, "vm": {"emulated": True}}
    folder = RunFolder.create(base, "run", {"run": "run", "scenario": "s", "platforms": platforms})
    for trial in trials:
        folder.append(trial)
    return folder


def _start(number: int, ready_s: float, outcome: Outcome = "ok", platform: str = "container") -> Trial:
    metrics = (
        Metric("ready", ready_s, "s"),
        Metric("created", ready_s / 10, "s"),
        Metric("web.first_process", ready_s / 3, "s"),
        Metric("web.created", ready_s / 10, "s"),
        Metric("redis.created", ready_s / 20, "s"),
    )
    reason = "" if outcome == "ok" else f"because of {number}"
    return Trial(number, number, platform, "start", outcome, reason, metrics=metrics)


def _load(number: int, rate_per_s: float, p99_s: float, outcome: Outcome = "ok") -> Trial:
    metrics = (Metric("latency_p99", p99_s, "s"),)
    return Trial(number, 1, "container", "utilisation", outcome, "", {"rate_per_s": rate_per_s}, metrics)


def test_trials_that_are_not_ok_are_counted_and_not_averaged(tmp_path: Path) -> None:
    bad: tuple[tuple[Outcome, float], ...] = (("failed", 50), ("void", 60), ("interrupted", 70), ("failed", 80))
    trials = [_start(number, 1 + number / 10) for number in range(3)]
    trials += [_start(10 + index, value, outcome) for index, (outcome, value) in enumerate(bad)]
    run = read_run(_folder(tmp_path, *trials))
    assert analysis.estimate_start_phases(run, "container")["ready"].value == 1.1
    assert analysis.select_values(run, "start", "container", "ready") == (1.0, 1.1, 1.2)
    (tally,) = analysis.count_outcomes(run)
    assert (tally.ok, tally.failed, tally.void, tally.interrupted) == (3, 2, 1, 1)
    assert tally.reasons == (
        "failed: because of 10",
        "void: because of 11",
        "interrupted: because of 12",
        "failed: because of 13",
    )


def test_phases_are_in_the_order_in_which_they_happen(tmp_path: Path) -> None:
    run = read_run(_folder(tmp_path, _start(1, 3.0)))
    assert list(analysis.estimate_start_phases(run, "container")) == ["created", "ready"]
    pairs = analysis.estimate_service_phases(run, "container")
    assert list(pairs) == [("redis", "created"), ("web", "created"), ("web", "first_process")]
    assert pairs["web", "first_process"].value == 1.0
    assert analysis.estimate_start_phases(run, "vm") == {}


def test_platforms_come_from_the_manifest_and_from_trials(tmp_path: Path) -> None:
    run = read_run(_folder(tmp_path, _start(1, 1.0, platform="jail")))
    assert [(one.name, one.label, one.emulated) for one in run.platforms] == [
        ("container", "container", False),
        ("vm", "vm", True),
        ("jail", "jail", False),
    ]
    assert run.platforms[0].facts == {"kernel": "6.1"}
    assert [one.name for one in run.emulated] == ["vm"]


def test_utilisation_is_by_rate(tmp_path: Path) -> None:
    trials = [_load(1, 50, 0.2), _load(2, 10, 0.1), _load(3, 50, 0.4), _load(4, 50, 9.0, "void"), _load(5, 50, 0.3)]
    run = read_run(_folder(tmp_path, *trials))
    by_rate = analysis.estimate_utilisation(run, "container")
    assert list(by_rate) == [10.0, 50.0]
    assert by_rate[50.0]["latency_p99"].value == 0.3
    assert by_rate[50.0]["latency_p99"].n == 3
    assert analysis.estimate_utilisation(run, "vm") == {}


def test_the_frame_is_tidy(tmp_path: Path) -> None:
    run = read_run(_folder(tmp_path, _start(1, 3.0), _load(2, 50, 0.25)))
    table = analysis.build_frame(run.trials)
    assert list(table.columns)[:5] == ["trial", "block", "platform", "measure", "outcome"]
    assert len(table) == 6
    row = table[table["metric"] == "latency_p99"].iloc[0]
    assert (row["rate_per_s"], row["value"], row["unit"]) == (50.0, 0.25, "s")
    assert len(analysis.build_frame([])) == 0


def test_a_rate_that_is_no_number_is_none(tmp_path: Path) -> None:
    text = replace(_load(1, 50, 0.2), parameters={"rate_per_s": "fast"})
    run = read_run(_folder(tmp_path, text, _load(2, 10, 0.1)))
    assert list(analysis.estimate_utilisation(run, "container")) == [10.0]


def test_a_saturated_platform_has_no_latency_at_that_rate(tmp_path: Path) -> None:
    behind = [
        replace(_load(number, 50, 3.0), metrics=(Metric("saturated", 1, "1"), Metric("achieved_rate", 30, "1/s")))
        for number in (1, 2)
    ]
    run = read_run(_folder(tmp_path, *behind, _load(3, 50, 0.2), _load(4, 10, 0.1)))
    assert analysis.find_saturated(run, "container") == {50.0: (2, 3)}
    by_rate = analysis.estimate_utilisation(run, "container")
    assert set(by_rate[50.0]) == {"achieved_rate"}, "one trial that kept up is not the platform's latency"
    assert by_rate[10.0]["latency_p99"].value == 0.1
