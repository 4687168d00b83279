"""Series of what was sampled, from the file of a trial, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.analysis import Run
from testbed.results import RunFolder, Trial
from testbed.sampler.records import COLUMNS, Row, tabulate
from testbed.timeline import compute_rates, read_timeline

ROWS = (
    Row(0.0, "web", {"cpu_ns": 0, "cgroup_bytes": 5}),
    Row(0.0, "host", {"busy": 0.25}),
    Row(0.1, "web", {"cpu_ns": 50_000_000}),
    Row(0.3, "web", {"cpu_ns": 250_000_000, "pss_bytes": 7}),
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    folder = RunFolder.create(tmp_path, "run", {"run": "run"})
    folder.write_samples("t000", COLUMNS, tabulate(ROWS))
    folder.write_samples("t001", ("due_s", "latency_s"), [(1, 2)])
    return Run(folder, folder.manifest, (), ())


def test_each_column_is_a_series_of_what_was_read(run: Run) -> None:
    timeline = read_timeline(run, Trial(0, 0, "container", "utilisation", "ok", samples="t000.csv"))
    assert timeline["web"]["cpu_ns"] == ((0.0, 0), (0.1, 50e6), (0.3, 250e6))
    assert timeline["web"]["pss_bytes"] == ((0.3, 7),)
    assert timeline["host"] == {"busy": ((0.0, 0.25),)}
    (first, second) = compute_rates(timeline["web"]["cpu_ns"], 1e9)
    assert first == (0.1, 0.5) and second[1] == pytest.approx(1.0)


def test_what_has_no_such_rows_has_no_series(run: Run) -> None:
    assert read_timeline(run, Trial(1, 0, "container", "start", "ok", samples="t001.csv")) == {}
    assert read_timeline(run, Trial(2, 0, "container", "start", "ok")) == {}


def test_a_counter_that_falls_or_a_clock_that_stands_has_no_rate_there() -> None:
    assert compute_rates([(0, 5), (1, 3), (2, 4), (2, 9)]) == ((2, 1),)
    assert compute_rates([]) == ()


@pytest.mark.parametrize(
    "damage", [b"", b"\xff\xfe", b"t_s,name\nx,y\n", b"name\nweb\n", b"t_s,name,cpu_ns\n1,,5\nnan,a,5\n"]
)
def test_a_damaged_file_has_no_series(run: Run, damage: bytes) -> None:
    (run.folder.path / "samples" / "t000.csv").write_bytes(damage)
    trial = Trial(0, 0, "container", "utilisation", "ok", samples="t000.csv")
    assert all(not columns for columns in read_timeline(run, trial).values())
    (run.folder.path / "samples" / "t000.csv").unlink()
    assert read_timeline(run, trial) == {}
