"""What a pilot's measurements mean; the pilot itself takes minutes."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import pytest

from benchmarks import pilot
from runtime.errors import TestbedError


def _run(chance: random.Random, build: float, took_s: float) -> pilot.Measured:
    run = build + chance.gauss(0, 0.01)
    instances = [run + chance.gauss(0, 0.2) for _ in range(4)]
    requests = [[one + chance.gauss(0, 0.5) for _ in range(30 + index)] for index, one in enumerate(instances)]
    return pilot.Measured(requests, [value / 10 for value in instances], 0.5, 0.04, took_s)


def test_what_varies_is_found_and_what_it_costs() -> None:
    chance = random.Random(1)
    builds = [[_run(chance, chance.gauss(0, 0.01), 20.0) for _ in range(3)] for _ in range(3)]
    found = pilot.decide(builds, 60.0)
    latency = found["latency"]
    assert [one.level for one in latency.levels] == ["build", "run", "instance", "request"]
    assert latency.counts == (3, 3, 4, 30)
    assert latency.components[3] == pytest.approx(0.25, rel=0.2)
    assert latency.components[2] == pytest.approx(0.04, rel=0.6)
    build, run, instance, request = latency.levels
    assert (build.count, build.cost_s, instance.cost_s, request.cost_s) == (None, 60, 0.5, 0.04)
    assert run.cost_s == pytest.approx(20 - 4 * 0.5 - 0.04 * (30 + 31 + 32 + 33))
    assert request.count == 9, "ceil(sqrt(0.5 / 0.04 * 0.25 / 0.04)), about"
    assert [one.level for one in found["ready"].levels] == ["build", "run", "instance"]


def test_a_table_of_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(2)
    pilot._print(pilot.decide([[_run(chance, 0, 20.0) for _ in range(2)] for _ in range(2)], 60.0))
    printed = capsys.readouterr().out
    assert "as needed" in printed and printed.count("\n") == 11


def test_one_repetition_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pilot.py", "--builds", "1"])
    with pytest.raises(TestbedError, match="at least 2 repetitions"):
        pilot.main()


def test_the_time_that_a_bench_waits_is_not_what_it_costs() -> None:
    script = (
        "import sys, time\n"
        "for line, then_s in (('waiting for the end of the run x', 1.5), ('begun', 0.2), ('done', 0)):\n"
        "    print(line, file=sys.stderr, flush=True); time.sleep(then_s)\n"
        "sys.exit(3)"
    )
    took_s, said, status = pilot.follow([sys.executable, "-c", script], {})
    assert 0.2 <= took_s < 1.5
    assert (said, status) == ("done", 3)


def test_a_bench_that_fails_is_told(tmp_path: Path) -> None:
    options = argparse.Namespace(scenario="no-such", platform="container", instances=2, quick=True)
    with pytest.raises(TestbedError, match="the pilot's bench exited with 1: "):
        pilot.run_bench(options, tmp_path, tmp_path / "out", 1)
