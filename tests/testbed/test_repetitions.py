"""Where a run should have repeated, from its own data."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from testbed.analysis import read_run
from testbed.repetitions import find_repetitions, read_steady_logs
from testbed.results import Metric, RunFolder, Trial


def _folder(base: Path, instances: int, requests: int = 60) -> RunFolder:
    chance = random.Random(1)
    folder = RunFolder.create(base, "run", {"run": "run", "scenario": "s", "platforms": {"container": {}}})
    for number in range(1, instances + 1):
        level = 0.01 * chance.lognormvariate(0, 0.1)
        rows = [(1 + 0.04 * at, level * chance.lognormvariate(0, 0.4)) for at in range(requests)]
        samples = folder.write_samples(f"t{number}", ("due_s", "latency_s"), rows)
        metrics = (Metric("ready", 0.5, "s"), Metric("steady", 1.0, "s"))
        folder.append(Trial(number, number, "container", "start", "ok", metrics=metrics, samples=samples))
    return folder


def test_instances_and_requests_have_their_parts_and_costs(tmp_path: Path) -> None:
    found = find_repetitions(read_run(_folder(tmp_path, 30)), "container")
    assert found is not None
    assert found.counts == (30, 60)
    assert found.components == pytest.approx((0.01, 0.16), rel=0.5)
    instance, request = found.levels
    assert (instance.count, instance.cost_s) == (None, 0.5)
    assert request.cost_s == pytest.approx(0.04)
    assert request.count == math.ceil(math.sqrt(0.5 / 0.04 * found.components[1] / found.components[0]))


def test_what_is_not_steady_or_no_number_does_not_count(tmp_path: Path) -> None:
    folder = _folder(tmp_path, 2)
    rows: list[tuple[float | str, float | str]] = [(0.5, 9.0), (1.5, 0.1), (1.6, "slow"), (1.7, 0.0), (1.8, -1.0)]
    samples = folder.write_samples("t9", ("due_s", "latency_s"), rows)
    trial = Trial(9, 9, "container", "start", "ok", metrics=(Metric("steady", 1.0, "s"),), samples=samples)
    run = read_run(folder)
    assert read_steady_logs(run, trial) == [pytest.approx(math.log(0.1))]
    assert read_steady_logs(run, Trial(10, 9, "container", "start", "ok")) == []


@pytest.mark.parametrize(("instances", "requests"), [(0, 60), (1, 60), (5, 4)])
def test_too_little_says_nothing(tmp_path: Path, instances: int, requests: int) -> None:
    assert find_repetitions(read_run(_folder(tmp_path, instances, requests)), "container") is None
