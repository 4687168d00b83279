"""A bench that is compared with an earlier one: measured for real, twice, and its exit code is the gate's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.brief_scenarios import create_brief_scenario

ROOT = Path(__file__).resolve().parents[3]
INVOKE = Path(sys.executable).parent / "invoke"


def bench(scenario: Path, out: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Starts of a static page, on containers of ours; it shares this host, which may measure another."""
    fixed = ("--platforms", "container", "--measures", "start", "--trials", "6", "--share", "--json", "--out", str(out))
    command = [str(INVOKE), "--search-root", str(ROOT), "bench", "--scenario", str(scenario), *fixed, *options]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=variables)


@pytest.mark.root
def test_a_bench_is_compared_with_its_baseline_and_exits_as_the_gate_does(tmp_path: Path) -> None:
    scenario, out, step = create_brief_scenario("page", tmp_path), tmp_path / "runs", tmp_path / "step.md"
    first = bench(scenario, out)
    assert first.returncode == 0, first.stderr
    (baseline,) = out.iterdir()

    options = ("--baseline", str(baseline), "--gate", "--limit", "1000%", "--junit", str(tmp_path / "cases.xml"))
    second = bench(scenario, out, *options, GITHUB_STEP_SUMMARY=str(step))
    results = {0: "ok", 4: "cannot tell"}  # one start of six that takes fifty times as long, on a busy host, is noise
    assert second.returncode in results, second.stderr
    document = json.loads(second.stdout)
    assert document["schema"] == "testbed-answer/1"
    assert document["comparison"]["result"] == results[second.returncode]
    assert document["comparison"]["before"]["runs"] == [baseline.name]
    assert b"start/ready" in (tmp_path / "cases.xml").read_bytes()
    assert step.read_text().count("\n### ") == 1 and step.read_text().startswith("### ")

    third = bench(scenario, out, "--baseline", str(out), "--gate", "--limit", "0%")
    assert third.returncode in (3, 4), "without any tolerance nothing is ok"
    sides = json.loads(third.stdout)["comparison"]
    assert len(sides["before"]["runs"]) == 2 and sides["exit_code"] == third.returncode
