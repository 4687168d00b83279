"""Density: the knee is where the service level last held, and the estimate that is labelled is the one drawn."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from reports.figures.chart import Point
from reports.figures.density import draw_density, find_knee
from testbed.analysis import estimate_memory_of_copies, read_run
from testbed.results import Metric, RunFolder, Trial

WriteRun = Any


def test_the_knee_is_the_last_step_that_held() -> None:
    points = [Point(1, 10), Point(2, 20), Point(3, 300)]
    assert find_knee(points, 2) == (points[1], points[2])
    assert find_knee(points, 3) == (points[2], None)
    assert find_knee(points, 0) == (None, points[0])
    assert find_knee([], 3) == (None, None)


def ramp(folder: RunFolder, number: int, held: int, start_s: float | None = None) -> None:
    rows: list[tuple[float, ...]] = [
        (0, 0.0, 0.0, 9e9, 0.0),
        *((n, n * 1e8, n * 1e8, 9e9 - n * 1e8, 10.0 * n) for n in range(1, 4)),
    ]
    header: tuple[str, ...] = ("applications", "cgroup_bytes", "pss_bytes", "available_bytes", "p99_ms")
    if start_s is not None:
        rows, header = [(*row, row[0] * start_s) for row in rows], (*header, "start_s")
    samples = folder.write_samples(f"t{number:03}", header, rows)
    metrics = (Metric("applications", held, "1"),)
    folder.append(Trial(number, 1, "container", "density", "ok", "slo: p99", {}, metrics, samples))


def test_the_level_the_knee_and_the_step_that_broke_it_are_marked(write_run: WriteRun) -> None:
    path = write_run(platforms=("container",), starts=0, ramps=0, blocks=0)
    ramp(RunFolder.open(path), 1, 2)
    latency, *memory = draw_density(read_run(RunFolder.open(path)))
    assert len(memory) == 3
    ring = re.search(r'class="ring c0" cx="([\d.]+)%"', latency.markup)
    cross = re.search(r'<use href="#cross" class="cross" x="([\d.]+)%"', latency.markup)
    assert ring and cross and float(ring[1]) == pytest.approx(2 / 3.06 * 100, abs=0.1)
    assert float(cross[1]) == pytest.approx(3 / 3.06 * 100, abs=0.1)
    assert 'class="limit"' in latency.markup and "service level 250 ms" in latency.markup
    assert "container held it with 2 copies (slo: p99)" in latency.alt


def test_how_long_a_start_takes_beside_others_is_drawn_where_it_is_known(write_run: WriteRun) -> None:
    path = write_run(platforms=("container",), starts=0, ramps=0, blocks=0)
    ramp(RunFolder.open(path), 1, 3, start_s=0.5)
    found = [picture for picture in draw_density(read_run(RunFolder.open(path))) if "beside" in picture.title]
    assert [picture.alt.partition(": ")[2] for picture in found] == ["container 0.5 s alone, 1.5 s at the last."]


def test_the_memory_figure_draws_the_estimate_that_it_labels(full_run: Path) -> None:
    """The line goes from nothing to the first copy, and from there by what each further one adds."""
    run = read_run(RunFolder.open(full_run))
    memory = estimate_memory_of_copies(run, "container", "memory_pss")
    assert memory is not None and memory.further is not None
    picture = next(one for one in draw_density(run) if "sum of PSS" in one.title)
    line = re.search(
        r'<path d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)" class="line c0"', picture.markup
    )
    assert line is not None
    _, y0, _, y1, _, y2 = map(float, line.groups())
    assert (y1 - y2) / 11 / (y0 - y1) == pytest.approx(memory.further.value / memory.first.value, rel=0.02)
