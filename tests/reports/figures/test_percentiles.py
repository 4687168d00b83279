"""Latency by percentile: of whole histograms where they are kept, and never beyond what so many requests tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reports.figures.percentiles import draw_percentiles, find_percentiles, place_percentile, read_percentiles
from testbed.analysis import Run, estimate_median, read_run
from testbed.histograms import build_histogram
from testbed.results import Metric, RunFolder, Trial

WriteRun = Any


def load(number: int, platform: str, histogram: str | None) -> Trial:
    metrics = (
        Metric("cpu_per_request", 0.001, "s"),
        Metric("latency_p50", 0.005, "s"),
        Metric("latency_p90", 0.009, "s"),
    )
    return Trial(number, 1, platform, "utilisation", "ok", "", {"rate_per_s": 30.0}, metrics, histogram=histogram)


def run_of(write_run: WriteRun, path: Path | None = None) -> Run:
    path = path or write_run(platforms=("container",), starts=0, ramps=0, blocks=0)
    return read_run(RunFolder.open(path))


@pytest.fixture
def folder(write_run: WriteRun) -> RunFolder:
    """Two trials of 1,000 requests of 1 to 1,000 ms each, with their histograms."""
    path = write_run(platforms=("container",), starts=0, ramps=0, blocks=0)
    folder = RunFolder.open(path)
    for number in (1, 2):
        latencies = build_histogram([1000 * at for at in range(1, 1001)])
        folder.append(load(number, "container", folder.write_histogram(f"t00{number}", latencies, 10.0)))
    return folder


def test_every_nine_takes_the_same_room() -> None:
    assert [place_percentile(at) for at in (0.0, 90.0, 99.0, 99.9)] == pytest.approx([0, 1, 2, 3])


def test_histograms_of_all_trials_are_drawn_together(write_run: WriteRun, folder: RunFolder) -> None:
    points = read_percentiles(run_of(write_run, folder.path), "container", 30.0)
    at = {round(point.x, 3): point.y for point in points}
    assert at[1.0] == pytest.approx(900, rel=0.01) and at[2.0] == pytest.approx(990, rel=0.01)
    assert max(at) <= place_percentile(100 * (1 - 5 / 2000)), "no percentile that fewer than five lie beyond"
    assert "container 99" in draw_percentiles(run_of(write_run, folder.path))[0].alt


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"1,2,3,HISTFAAAA\n"])
def test_a_damaged_histogram_leaves_the_percentiles_of_metrics(
    write_run: WriteRun, folder: RunFolder, content: bytes
) -> None:
    (folder.path / "samples" / "t002.hdr").write_bytes(content)
    points = read_percentiles(run_of(write_run, folder.path), "container", 30.0)
    assert [point.x for point in points] == pytest.approx([place_percentile(50), 1.0])
    assert [point.y for point in points] == pytest.approx([5.0, 9.0])


def test_percentiles_are_known_by_their_names() -> None:
    one = estimate_median([0.001])
    found = find_percentiles({"latency_p99_9": one, "latency_p50": one, "latency_p100": one, "latency_pxx": one})
    assert [point.x for point in found] == pytest.approx([place_percentile(50), 3.0])
