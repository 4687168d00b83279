"""What becomes of trials: only those that are ok are averaged, all are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    assert analysis.start_phases(run, "container")["ready"].value == 1.1
    assert analysis.values(run, "start", "container", "ready") == (1.0, 1.1, 1.2)
    (tally,) = analysis.tallies(run)
    assert (tally.ok, tally.failed, tally.void, tally.interrupted) == (3, 2, 1, 1)
    assert tally.reasons == (
        "failed: because of 10",
        "void: because of 11",
        "interrupted: because of 12",
        "failed: because of 13",
    )


def test_phases_are_in_the_order_in_which_they_happen(tmp_path: Path) -> None:
    run = read_run(_folder(tmp_path, _start(1, 3.0)))
    assert list(analysis.start_phases(run, "container")) == ["created", "ready"]
    pairs = analysis.service_phases(run, "container")
    assert list(pairs) == [("redis", "created"), ("web", "created"), ("web", "first_process")]
    assert pairs["web", "first_process"].value == 1.0
    assert analysis.start_phases(run, "vm") == {}


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
    found = analysis.utilisation(run, "container")
    assert list(found) == [10.0, 50.0]
    assert found[50.0]["latency_p99"].value == 0.3
    assert found[50.0]["latency_p99"].n == 3
    assert analysis.utilisation(run, "vm") == {}


def test_the_frame_is_tidy(tmp_path: Path) -> None:
    run = read_run(_folder(tmp_path, _start(1, 3.0), _load(2, 50, 0.25)))
    table = analysis.frame(run.trials)
    assert list(table.columns)[:5] == ["trial", "block", "platform", "measure", "outcome"]
    assert len(table) == 6
    row = table[table["metric"] == "latency_p99"].iloc[0]
    assert (row["rate_per_s"], row["value"], row["unit"]) == (50.0, 0.25, "s")
    assert len(analysis.frame([])) == 0


def _ramp(folder: RunFolder, number: int, each_bytes: float, interval: bool = True) -> Trial:
    samples = folder.write_samples(f"t{number}", ("applications", "cgroup_bytes"), [(0, 0), (1, each_bytes)])
    metrics = [Metric("applications", 4, "1"), Metric("memory_cgroup", each_bytes, "bytes")]
    if interval:
        metrics += [Metric("memory_cgroup_low", each_bytes - 1, "bytes")]
        metrics += [Metric("memory_cgroup_high", each_bytes + 1, "bytes")]
    return Trial(number, number, "container", "density", "ok", "cap: 4", metrics=tuple(metrics), samples=samples)


def test_one_ramp_has_its_own_interval_and_several_that_of_their_median(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.append(_ramp(folder, 1, 100.0))
    (ramp,) = analysis.ramps(read_run(folder), "container")
    assert (ramp.applications, ramp.reason) == (4, "cap: 4")
    assert ramp.points == {"applications": (0.0, 1.0), "cgroup_bytes": (0.0, 100.0)}
    slope = analysis.memory_slope([ramp], "memory_cgroup")
    assert slope == analysis.MemorySlope(100.0, 99.0, 101.0, 1, True)
    for number in range(2, 4):
        folder.append(_ramp(folder, number, 100.0 * number))
    several = analysis.memory_slope(analysis.ramps(read_run(folder), "container"), "memory_cgroup")
    assert several == analysis.MemorySlope(200.0, 100.0, 300.0, 3, False)
    assert analysis.memory_slope([ramp], "memory_pss") is None


def test_a_ramp_of_two_points_has_no_interval(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.append(_ramp(folder, 1, 100.0, interval=False))
    slope = analysis.memory_slope(analysis.ramps(read_run(folder), "container"), "memory_cgroup")
    assert slope == analysis.MemorySlope(100.0, None, None, 1, False)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00", b'a,b\n"1', b"a\n1,2,3\n1\n"])
def test_damaged_samples_do_not_stop_the_analysis(tmp_path: Path, content: bytes | None) -> None:
    folder = _folder(tmp_path)
    folder.append(_ramp(folder, 1, 100.0))
    path = folder.path / "samples" / "t1.csv"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    (ramp,) = analysis.ramps(read_run(folder), "container")
    assert ramp.slopes["memory_cgroup"].value == 100.0
    assert "cgroup_bytes" not in ramp.points
