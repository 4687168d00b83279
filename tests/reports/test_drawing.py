"""Labels beside lines do not overlap."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from reports.drawing import assign_looks, spread_centres
from testbed.analysis import Platform, Run
from testbed.results import RunFolder


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


def test_no_two_of_many_platforms_look_the_same() -> None:
    names = ("container", "vm", *(f"kind-{number}" for number in range(50)))
    platforms = tuple(Platform(name, name, False, {}) for name in names)
    assigned = assign_looks(Run(RunFolder(Path(), {}), {}, (), platforms))
    assert list(assigned) == list(names)
    assert len({(look.colour, look.marker) for look in assigned.values()}) == len(names)
    assert len({assigned[name].colour for name in names[:9]}) == 9
