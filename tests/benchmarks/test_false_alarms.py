"""The count of gates that are red though nothing changed, on real pairs of runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.false_alarms import JUDGED, count_gates, make_runs, make_slower, pair_up
from testbed.runs.compare import parse_limits

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.root
def test_runs_that_became_far_slower_are_red_and_the_same_run_is_not(tmp_path: Path) -> None:
    """Real starts; a run against itself differs in nothing, and one that takes tenfold is never ok."""
    (one,) = make_runs(1, 12, str(tmp_path))
    limits = parse_limits("5%", JUDGED)
    same = count_gates([([one], [one])], limits)
    assert (same.gates, same.regression, same.largest) == (1, 0, 0)
    slower = count_gates([([one], [make_slower(one, 10.0)])], limits)
    assert slower.largest == pytest.approx(9)
    assert slower.regression + slower.cannot_tell == 1 and slower.ok == 0


def test_runs_are_taken_two_by_two_or_each_with_those_before_it() -> None:
    runs: list[Any] = [1, 2, 3, 4, 5]
    pairs: Any = pair_up(runs, 1)
    assert pairs == [([1], [2]), ([3], [4])]
    windows: Any = pair_up(runs, 3)
    assert windows == [([1, 2, 3], [4]), ([2, 3, 4], [5])]


@pytest.mark.root
def test_it_prints_how_many_gates_said_what(tmp_path: Path) -> None:
    script = str(REPOSITORY / "benchmarks" / "false_alarms.py")
    options = ("--pairs", "1", "--trials", "6", "--out", str(tmp_path), "--json")
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True, check=True)
    counts = json.loads(done.stdout)
    assert set(counts) == {"A/A", "times x 2"} and counts["A/A"]["gates"] == 1
    again = subprocess.run(
        [sys.executable, script, "--runs", str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "A/A          1 gates: " in again.stdout
