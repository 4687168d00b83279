"""Density: the estimate of a copy's memory that is labelled is the one drawn."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reports.figures.density import draw_density
from testbed.analysis import read_run
from testbed.ramps import estimate_memory_of_copies
from testbed.results import RunFolder


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
