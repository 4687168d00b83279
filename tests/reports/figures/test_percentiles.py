"""Latency by percentile: each further nine takes the same room, and a percentile is known by its metric's name."""

from __future__ import annotations

from typing import Any

import pytest

from reports.figures.percentiles import draw_percentiles, find_percentiles, place_percentile
from testbed.analysis import estimate_median, read_run
from testbed.results import RunFolder

WriteRun = Any


def test_every_nine_takes_the_same_room() -> None:
    assert [place_percentile(at) for at in (0.0, 90.0, 99.0, 99.9)] == pytest.approx([0, 1, 2, 3])


def test_percentiles_are_known_by_their_names() -> None:
    one = estimate_median([0.001])
    found = find_percentiles({"latency_p99_9": one, "latency_p50": one, "latency_p100": one, "latency_pxx": one})
    assert [point.x for point in found] == pytest.approx([place_percentile(50), 3.0])


def test_every_platform_that_kept_up_is_drawn(write_run: WriteRun) -> None:
    run = read_run(RunFolder.open(write_run(platforms=("container", "kvm"), starts=0, ramps=0)))
    (picture,) = draw_percentiles(run)
    assert "at 200 requests/s: container " in picture.alt and "vm (KVM) " in picture.alt
    assert picture.markup.count('class="whisker') == 4
