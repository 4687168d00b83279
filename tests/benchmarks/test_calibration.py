"""The table that sets instruction time beside the time of a host of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.calibration import (
    ALL,
    BARE,
    START,
    Pair,
    find_agreement,
    find_agreements,
    pair_figures,
    show,
)
from runtime.errors import UsageError
from testbed.analysis import Run, read_run
from testbed.results import Metric, RunFolder, Trial

REPOSITORY = Path(__file__).resolve().parents[2]
PHASES = ("created", "first_process", "port_open", "ready")


def _run(base: Path, name: str, seconds: tuple[float, ...], **manifest: object) -> Run:
    folder = RunFolder.create(base, name, {"run": name, "scenario": "small", **manifest})
    metrics = [Metric(phase, value, "s") for phase, value in zip(PHASES, seconds, strict=True)]
    folder.append(Trial(1, 1, "container", "start", "ok", metrics=(*metrics, Metric("exits", 9, "1"))))
    folder.append(Trial(2, 1, "vm", "start", "ok", metrics=tuple(metrics)))
    return read_run(folder)


@pytest.fixture
def native(tmp_path: Path) -> Run:
    return _run(tmp_path, "native", (0.001, 0.002, 0.4, 0.5), bare={"start a process": 0.0005, "gone": 1.0})


@pytest.fixture
def reference(tmp_path: Path) -> Run:
    times = (0.004, 0.01, 1.6, 2.0)
    return _run(tmp_path, "inside", times, bare={"start a process": 0.002}, machine={"kind": "reference"})


def test_what_both_runs_have_of_containers_and_bare_processes_is_paired(native: Run, reference: Run) -> None:
    pairs = pair_figures(native, reference)
    assert pairs[0] == Pair(BARE, "start a process", 0.0005, 0.002)
    steps = {pair.figure: pair for pair in pairs if pair.group == START}
    assert list(steps) == ["created to first_process", "first_process to port_open", "port_open to ready"]
    assert steps["port_open to ready"].native_s == pytest.approx(0.1), "what it took, not since the request"
    assert pairs[0].ratio == 4


def test_the_order_of_the_runs_matters(native: Run, reference: Run) -> None:
    for wrong in ((reference, native), (native, native)):
        with pytest.raises(UsageError, match="a host of its own, then one in the reference machine"):
            pair_figures(*wrong)


def test_the_rank_correlation_is_of_orders_and_not_of_sizes() -> None:
    same = [Pair(START, str(number), number, number**3) for number in range(1, 6)]
    assert find_agreement(START, same).rank_correlation == pytest.approx(1)
    opposite = [Pair(START, str(number), number, 9 - number) for number in range(1, 6)]
    assert find_agreement(START, opposite).rank_correlation == pytest.approx(-1)
    assert (found := find_agreement(START, same)).least == 1 and found.greatest == 25


def test_too_few_figures_have_no_rank_correlation() -> None:
    few = [Pair(START, str(number), number, number) for number in range(1, 4)]
    assert find_agreement(START, few).rank_correlation is None


def test_each_group_has_an_agreement_and_so_have_all(native: Run, reference: Run) -> None:
    pairs = pair_figures(native, reference)
    agreements = find_agreements(pairs)
    assert [one.group for one in agreements] == [BARE, START, ALL]
    lines = show(pairs, agreements).splitlines()
    assert lines[2] == "| bare processes: start a process | 500 µs | 2 ms | 4.00 |"
    assert lines[-3] == "| bare processes | 1 | too few | 4.00 | 4.00 to 4.00 | 1.0 |"


def test_the_command_prints_data(native: Run, reference: Run) -> None:
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "calibration.py"), "--json"]
    folders = [str(run.folder.path) for run in (native, reference)]
    done = subprocess.run([*command, *folders], capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["figures"]) == 4
    refused = subprocess.run([*command, *reversed(folders)], capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and refused.stderr.startswith("error: calibration wants a run on a host of its own")
