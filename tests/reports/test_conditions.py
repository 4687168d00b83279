"""The verdict on noise that stands beside the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reports.conditions import describe_roots, judge_noise, list_badges
from testbed.analysis import Run, read_run
from testbed.results import Metric, RunFolder, Trial

WriteRun = Any


def open_run(path: Path) -> Run:
    return read_run(RunFolder.open(path))


def start(number: int, ready_s: float, *disturbances: str) -> Trial:
    metrics = (Metric("ready", ready_s, "s"),)
    window = {"steal": 0.0}
    return Trial(number, number, "container", "start", "ok", "", {}, metrics, None, "", window, disturbances)


def run_of(write_run: WriteRun, trials: list[Trial], **changes: Any) -> Run:
    return open_run(write_run(platforms=("container",), starts=0, ramps=0, blocks=0, extra=trials, **changes))


def test_a_quiet_host_is_said_to_be_quiet(write_run: WriteRun) -> None:
    verdict = judge_noise(run_of(write_run, [start(n, 1.0 + n * 7 % 5 / 100) for n in range(1, 13)]))
    assert (verdict.level, verdict.title) == ("quiet", "The host was quiet")
    assert verdict.reasons == ("Trials disturbed: none of 12.",)


def test_disturbed_trials_and_a_busy_host_are_told(write_run: WriteRun) -> None:
    trials = [start(1, 1.0, "all tasks waited for the disk"), start(2, 1.01)]
    verdict = judge_noise(run_of(write_run, trials, noise=["load average 3"]))
    assert verdict.level == "disturbed"
    assert verdict.reasons == ("Trials disturbed: 1 of 2.", "Before the run: load average 3.")


def test_figures_that_move_are_told(write_run: WriteRun) -> None:
    verdict = judge_noise(run_of(write_run, [start(n, 1.0 + n / 50) for n in range(1, 31)]))
    assert verdict.level == "disturbed" and "drifted over the run: container +" in " ".join(verdict.reasons)
    assert verdict.reasons[-1] == "Trials resemble their neighbours (container): intervals are widened."


def test_few_trials_that_move_are_told_with_what_their_interval_lacks(write_run: WriteRun) -> None:
    verdict = judge_noise(run_of(write_run, [start(n, 1.0 + n / 50) for n in range(1, 9)]))
    assert verdict.reasons[-1].endswith("(container): intervals are widened, but of fewer than 10 trials.")


def test_what_was_not_recorded_is_not_said_to_be_quiet(write_run: WriteRun) -> None:
    path = write_run(platforms=("container",), starts=3, ramps=0, blocks=0)
    assert judge_noise(open_run(path)).level == "unknown"


def test_badges_say_what_the_figures_are(write_run: WriteRun) -> None:
    path = write_run(starts=1, ramps=0, blocks=0, status="interrupted", quick=True, machine={"kind": "reference"})
    assert [(badge.level, badge.text.partition(",")[0].partition(":")[0]) for badge in list_badges(open_run(path))] == [
        ("alarm", "Emulated"), ("alarm", "Instruction time"), ("alarm", "The run did not finish (interrupted)"),
        ("note", "Quick settings"),
    ]  # fmt: skip


def test_what_makes_the_roots_is_told_of_each_platform(write_run: WriteRun) -> None:
    platforms = {
        "container": {"label": "container", "emulated": False, "root": "overlay on tmpfs"},
        "vm": {"label": "VM", "emulated": True, "accelerator": "tcg"},
        "crun": {"label": "crun", "emulated": False, "root": "overlay on tmpfs"},
    }
    path = write_run(starts=1, ramps=0, blocks=0, root_driver="overlay")
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"platforms": platforms}))
    assert describe_roots(open_run(path)) == "container, crun: overlay on tmpfs; VM: overlay in the guest"
    manifest["platforms"] = {"vm": platforms["vm"]}
    del manifest["root_driver"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert describe_roots(open_run(path)) == ""
