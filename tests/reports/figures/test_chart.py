"""Charts: labels beside lines do not overlap, points lie where their values are."""

from __future__ import annotations

import itertools
import random

import pytest

from reports.figures.chart import Chart, Limit, Point, Series, draw_chart, spread_centres
from reports.figures.marks import Look
from reports.figures.scales import Scale


def test_labels_with_room_stay_where_they_are_wanted() -> None:
    assert spread_centres([10, 50, 90], [8, 8, 8], 0, 100) == [10, 50, 90]


def test_labels_at_the_edges_stay_inside() -> None:
    assert spread_centres([0, 100], [10, 10], 0, 100) == [5, 95]


@pytest.mark.parametrize("seed", range(20))
def test_labels_never_overlap(seed: int) -> None:
    chance = random.Random(seed)
    wanted = sorted(chance.uniform(0, 100) for _ in range(6))
    heights = [chance.uniform(5, 15) for _ in wanted]
    centres = spread_centres(wanted, heights, 0, 100)
    edges = [(centre - height / 2, centre + height / 2) for centre, height in zip(centres, heights, strict=True)]
    assert all(above[0] >= below[1] - 1e-9 for below, above in itertools.pairwise(edges))
    assert edges[0][0] >= -1e-9
    assert edges[-1][1] <= max(100.0, sum(heights)) + 1e-9


LOOK = Look(0, 0, False, "container")


def test_points_and_limits_lie_where_their_values_are() -> None:
    series = [Series("container", LOOK, [Point(0, 0), Point(5, 50, 40, 60), Point(10, 100)])]
    chart = Chart(
        Scale("linear", 0, 10), Scale("linear", 0, 100), "x", "y", series, [Limit(25, "limit")], height_px=200
    )
    svg = draw_chart(chart)
    assert '<use href="#m0" x="50%" y="100"' in svg and '<use href="#m0" x="100%" y="0"' in svg
    assert '<line x1="50%" y1="120" x2="50%" y2="80" class="whisker' in svg
    assert '<line x1="0%" y1="150" x2="100%" y2="150" class="limit"/>' in svg
    assert "M0 200L500 100L1000 0" in svg
    assert svg.count(">container<") == 2, "at the end of the line, and in the key of narrow screens"
