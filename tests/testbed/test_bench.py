"""What a run does before it measures, and whole runs of a small scenario in their several forms."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.analysis import read_run
from testbed.bench import bench
from testbed.pairs import list_duets, list_noise_floors
from testbed.request import Options
from testbed.results import RunFolder
from tests.brief_scenarios import create_brief_scenario
from tests.owned import no_dead_run_left

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = ROOT / "scenarios"
INVOKE = Path(sys.executable).parent / "invoke"


@pytest.mark.parametrize(
    ("asked", "added"),
    [(("container", "vm-restored"), "vm"), (("container-pooled", "vm-restored"), "container, vm"), (("vm",), "")],
)
def test_the_cold_counterparts_of_warm_platforms_are_measured_too(
    asked: tuple[str, ...], added: str, tmp_path: Path
) -> None:
    """It says so before anything is built; the measure that there is not ends the run then."""
    lines: list[str] = []
    options = Options("clickme", asked, "auto", ("nothing",), None, True, 1, tmp_path, SCENARIOS, ())
    with pytest.raises(UsageError, match="unknown measure nothing"):
        bench(options, lines.append)
    said = [f"measured too, as warm starts are compared beside cold ones only: {added}"] if added else []
    assert lines == said


@pytest.fixture
def scenario(tmp_path: Path) -> Iterator[str]:
    """A small scenario; the runs of it leave nothing."""
    (tmp_path / "scenarios").mkdir()
    brief = create_brief_scenario("tiny", tmp_path / "scenarios")
    with no_dead_run_left():
        yield str(brief)


def run(scenario: str, out: Path, *arguments: str) -> tuple[RunFolder, str]:
    """Return the folder of a run on containers, and what it said."""
    command = [str(INVOKE), "--search-root", str(ROOT), "bench", "--scenario", scenario, "--platforms", "container"]
    asked = [*command, *arguments, "--out", str(out), "--share", "--json"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return RunFolder.open(Path(json.loads(done.stdout)["folder"])), done.stderr


@pytest.mark.root
@pytest.mark.network
def test_a_run_within_a_budget_begins_with_a_warm_up_and_measures_its_noise(scenario: str, tmp_path: Path) -> None:
    """It has the time for a few blocks only, which are complete."""
    folder, said = run(scenario, tmp_path, "--measures", "start", "--budget", "20s")
    trials = folder.trials()
    assert "blocks: at least 10 of start, after 1 of each as a warm-up" in said and "no block that would not" in said
    assert {trial.platform for trial in trials} == {"container", "container@again"} and len(trials) % 2 == 0
    assert [trial.warmup for trial in trials[:3]] == [True, True, False]
    assert "budget of 20 s" in folder.manifest["ended"]["start"]
    assert 0 < folder.sessions[0]["measured_s"] < 35 and folder.sessions[0]["unfinished_block"] is None
    measured = read_run(folder)
    assert [one.label for one in measured.again] == ["container (again)"]
    assert "--share" in folder.manifest["noise"][-1]
    (floor,) = list_noise_floors(measured)
    assert floor.metric == "ready" and 0 <= floor.spread < inf


@pytest.mark.root
@pytest.mark.network
def test_a_duet_is_of_pairs(scenario: str, tmp_path: Path) -> None:
    folder, _ = run(scenario, tmp_path, "--duet", "--aa", "container", "--quick")
    measured = read_run(folder)
    assert folder.manifest["duet"] is True
    assert {trial.measure for trial in measured.trials} == {"start", "utilisation"}
    assert all(trial.beside != trial.platform and trial.beside for trial in measured.trials)
    assert list_duets(measured) == (("container", "container@again"),)


@pytest.mark.root
@pytest.mark.network
def test_a_revision_is_measured_beside_this_one(scenario: str, tmp_path: Path) -> None:
    folder, said = run(scenario, tmp_path, "--against", "HEAD", "--measures", "start", "--trials", "1")
    commit = folder.manifest["against"]["commit"]
    (own, other) = sorted(folder.trials(), key=lambda trial: trial.platform)
    assert (own.platform, other.platform) == ("container", f"container@{commit[:12]}")
    assert own.outcome == other.outcome == "ok" and own.beside == "" and "making a second tree" in said
    assert folder.manifest["platforms"][other.platform]["label"] == f"container ({commit[:12]})"
    assert folder.manifest["platforms"][other.platform]["images"] == folder.manifest["platforms"]["container"]["images"]


@pytest.mark.root
@pytest.mark.network
def test_servers_are_packed_in_containers(scenario: str, tmp_path: Path) -> None:
    """The level is so patient that a busy host keeps to it, too."""
    with (Path(scenario) / "compose.yaml").open("a") as file:
        file.write("  slo: {p99_ms: 9000, error_fraction: 0.5}\n")
        file.write("  consolidation: {window_s: 0.5, settle_s: 0.1, idle_s: 0.3, zombies: 0}\n")
    asked = ("--measures", "consolidation", "--fractions", "3", "--packing", "declared", "--cap", "2", "--trials", "1")
    folder, said = run(scenario, tmp_path, *asked)
    (trial,) = folder.trials()
    assert "calibrating on container: one copy alone" in said
    declared = int(trial.value("declared") or 0)
    assert trial.outcome == "ok" and trial.value("servers") == min(2, declared), trial.reason
    (rate,) = folder.manifest["calibration"]["rates"]
    assert abs(rate["reached"] - 0.03) <= 0.03 * 0.1 and trial.parameters["rate_per_s"] == rate["rate_per_s"]
    assert "Consolidation</h2>" in (folder.path / "report.html").read_text()
