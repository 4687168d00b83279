"""Runs that are gone on with: killed for real, and those that must not be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec import to_builtins

from runtime.errors import UsageError
from runtime.lease import lease
from testbed import leftovers
from testbed.request import Options
from testbed.results import FORMAT, RunFolder, Trial
from testbed.resume import check_same, find_differences, open_resumed
from testbed.scenario.consolidation import Asked
from tests.brief_scenarios import create_brief_scenario

ROOT = Path(__file__).resolve().parents[2]
INVOKE = Path(sys.executable).parent / "invoke"


def make_options(**changes: Any) -> Options:
    given: dict[str, Any] = {
        "scenario": "small", "platforms": ("container",), "accelerator": "auto", "measures": ("start",), "trials": 2,
        "quick": False, "seed": 1, "out": Path("results"), "scenarios": Path("scenarios"), "command": ("bench",),
    }  # fmt: skip
    return Options(**(given | changes))


@pytest.fixture
def folder(tmp_path: Path, run_name: str) -> RunFolder:
    """A run that was killed."""
    options = to_builtins(
        make_options(packed=Asked(fractions=(0.05,), zombies=0.0)), enc_hook=str
    )  # as the manifest has them
    return RunFolder.create(tmp_path, run_name, {"run": run_name, "options": options, "command": "bench"})


def resume(folder: RunFolder, **changes: Any) -> Any:
    return open_resumed(make_options(resume=folder.path, command=("bench", "--resume"), **changes))


def test_a_run_goes_on_with_what_was_asked_for_it(folder: RunFolder) -> None:
    resumed = resume(folder, scenario="another", wait=True)
    assert (resumed.run_id, resumed.options.scenario, resumed.options.wait) == (folder.run_id, "small", True)
    assert resumed.options.command == ("bench", "--resume") and not resumed.options.share
    assert resumed.options.packed == Asked(fractions=(0.05,), zombies=0.0)
    assert resumed.options.scenarios == Path("scenarios") and resumed.options.out == folder.path.parent


def test_a_budget_may_be_new_and_counts_from_then_on(folder: RunFolder) -> None:
    folder.note_session(measured_s=50.0)
    folder.finish("interrupted")
    assert (resume(folder).spent_s, resume(folder).options.budget_s) == (50.0, None)
    assert (resume(folder, budget_s=60.0).spent_s, resume(folder, budget_s=60.0).options.budget_s) == (0.0, 60.0)


def test_a_session_that_was_killed_has_measured_until_its_last_trial(folder: RunFolder) -> None:
    folder.append(Trial(1, 1, "container", "start", "ok"))
    later = time.time() + 100
    os.utime(folder.path / "trials.jsonl", (later, later))
    assert 98 < resume(folder).spent_s < 103
    folder.begin_session("bench --resume")
    assert [one["status"] for one in folder.sessions] == ["killed", "running"]


def change(folder: RunFolder, **members: object) -> None:
    folder.note(**members)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"status": "finished"}, "is finished: nothing of it is left"),
        ({"format": FORMAT + 1}, f"has the format {FORMAT + 1}"),
        ({"machine": {"kind": "reference"}}, "reference machine, which cannot be resumed"),
        ({"options": {}}, "damaged options in its manifest"),
        ({"options": 5}, "damaged options"),
        ({"options": {"scenario": ["x"]}}, "damaged options"),
        ({"run": "../../etc"}, "which is no name of one"),
        ({"run": "x" * 500}, "which is no name of one"),
        ({"run": 5}, "names no run"),
    ],
)
def test_what_cannot_be_resumed_is_refused(folder: RunFolder, members: Mapping[str, object], problem: str) -> None:
    change(folder, **members)
    with pytest.raises(UsageError, match=problem):
        resume(folder)


def test_a_run_of_a_testbed_that_noted_no_options_is_refused(folder: RunFolder) -> None:
    del folder.manifest["options"]
    change(folder)
    with pytest.raises(UsageError, match="says nothing of what was asked for"):
        resume(folder)


def test_what_is_no_run_or_has_damaged_trials_is_refused(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no run folder"):
        open_resumed(make_options(resume=tmp_path / "nothing"))
    (folder.path / "trials.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match=r"trials.jsonl:1: not a trial"):
        resume(folder)


@pytest.mark.root
def test_a_run_that_is_being_measured_is_refused(folder: RunFolder) -> None:
    with lease(folder.run_id), pytest.raises(UsageError, match="is being measured right now"):
        resume(folder)


MANIFEST: Mapping[str, Any] = {
    "run": "r",
    "settings": {"load": {"rates_per_s": [10.0]}},
    "images": {"web": {"id": "sha256:1", "layers": []}},
    "host": {"kernel": "6.1", "cpu": {"model": "a", "processors": 2}, "memory": {"total_bytes": 1000}},
    "source": {"commit": "abc", "dirty": False},
    "platforms": {"container": {"label": "container", "emulated": False, "kernel": "6.1"}},
}


def test_what_is_as_it_was_may_go_on() -> None:
    now = json.loads(json.dumps(MANIFEST))
    now["host"]["memory"]["total_bytes"] = 1005
    now["settings"]["load"]["rates_per_s"] = (10.0,)
    now["host"]["load_average"] = [3.0]
    assert find_differences(MANIFEST, now) == ()
    check_same(MANIFEST, now)


def test_all_that_differs_is_told_at_once() -> None:
    now = json.loads(json.dumps(MANIFEST))
    now["images"]["web"]["id"] = "sha256:2"
    now["host"]["cpu"]["model"] = "b"
    now["host"]["memory"]["total_bytes"] = 2000
    now["source"]["commit"] = "def"
    now["platforms"]["container"]["label"] = "container (KVM)"
    with pytest.raises(UsageError) as raised:
        check_same(MANIFEST, now)
    said = str(raised.value)
    for line in (
        'images: was {"web":"sha256:1"}, is {"web":"sha256:2"}',
        "host.cpu.model: was a, is b",
        "host.memory.total_bytes: was 1000, is 2000",
        "source.commit: was abc, is def",
        "platforms.container.label: was container, is container (KVM)",
    ):
        assert line in said


def test_a_hostile_manifest_is_only_different() -> None:
    for hostile in ({**MANIFEST, "host": 5, "images": [], "platforms": "x"}, {"run": "r"}):
        assert find_differences(hostile, MANIFEST)


@pytest.mark.root
@pytest.mark.network
def test_a_run_that_was_killed_is_finished_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "scenarios").mkdir()
    brief = create_brief_scenario("tiny", tmp_path / "scenarios")
    asked = (
        "--scenario", str(brief), "--platforms", "container", "--aa", "container",
        "--measures", "start", "--trials", "3", "--out", str(tmp_path), "--share",
    )  # fmt: skip
    with bench(*asked) as process:
        wait_for(process, "trial 4 of 6")
        process.send_signal(signal.SIGKILL)
    (path,) = (one.parent for one in tmp_path.glob("*/manifest.json"))
    killed = RunFolder.open(path)
    before_kill = killed.trials()
    assert killed.manifest["status"] == "running" and len(before_kill) == 3
    with (path / "trials.jsonl").open("ab") as file:
        file.write(b'{"trial": 4, "blo')  # as a power loss leaves it
    with bench("--resume", str(path), "--json") as process:
        answer, errors = process.communicate()
    assert process.returncode == 0, errors
    assert json.loads(answer)["run"] == killed.run_id
    run = RunFolder.open(path)
    assert [one["status"] for one in run.sessions] == ["killed", "finished"]
    assert "--resume" in run.sessions[1]["command"] and run.manifest["status"] == "finished"
    trials = run.trials()
    assert [trial.trial for trial in trials] == [1, 2, 3, 4, 5, 6]
    assert len({(trial.block, trial.platform) for trial in trials}) == 6
    assert trials[:3] == before_kill and all(trial.outcome == "ok" for trial in trials)
    assert [left for left in leftovers.find() if left.run == killed.run_id] == []
    again = subprocess.run([INVOKE, "bench", "--resume", path], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 1 and "is finished" in again.stderr


def bench(*arguments: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [str(INVOKE), "--search-root", str(ROOT), "bench", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def wait_for(process: subprocess.Popen[str], beginning: str) -> None:
    assert process.stderr
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith(beginning):
            return
    raise AssertionError("".join(seen))
