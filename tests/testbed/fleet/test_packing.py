"""Heuristics on instances that are small enough to be solved exactly, and what holds for every packing."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.errors import UsageError
from testbed.fleet.bounds import find_bound
from testbed.fleet.demands import Room, group, is_within
from testbed.fleet.packing import HEURISTICS, Heuristic, fits_alone, pack, pack_in_order
from tests.testbed.fleet.exact import draw_demand, find_fewest, make_demand

ROOM = Room(1.0, 1.0, 2.33, 0.0)
WHOLE = Room(1.0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize("correlation", [0.0, 0.4])
@pytest.mark.parametrize("heuristic", HEURISTICS)
def test_no_heuristic_is_below_the_optimum_and_none_far_above(heuristic: Heuristic, correlation: float) -> None:
    chance, room = np.random.default_rng(3), Room(1.0, 1.0, 2.33, correlation)
    found = []
    for _ in range(25):
        demand = draw_demand(chance, 8)
        while not fits_alone(demand, room):
            demand = draw_demand(chance, 8)
        packing, fewest = pack(demand, room, heuristic), find_fewest(demand, room)
        assert packing.placed == 8 and is_within(room, packing.sums).all()
        assert find_bound(demand, room).hosts <= fewest <= packing.count <= 2 * fewest
        found.append(packing.count == fewest)
    assert sum(found) >= 12  # about half of them are found


@pytest.mark.parametrize("heuristic", ["first fit", "best fit"])
def test_decreasing_fits_of_one_resource_are_within_eleven_ninths(heuristic: Heuristic) -> None:
    """D. S. Johnson (1973) and, with the constant, G. Dosa (2007): FFD <= 11/9 OPT + 6/9; the same holds for BFD."""
    chance = np.random.default_rng(5)
    for _ in range(40):
        sizes = chance.choice([0.21, 0.26, 0.31, 0.36, 0.41, 0.51, 0.61], 9)
        demand = make_demand([1e-6] * 9, [0.0] * 9, list(sizes))
        assert pack(demand, WHOLE, heuristic).count <= 11 / 9 * find_fewest(demand, WHOLE) + 6 / 9


def test_first_fit_decreasing_places_as_one_does_by_hand() -> None:
    demand = make_demand([1e-6] * 6, [0.0] * 6, [0.6, 0.5, 0.4, 0.3, 0.2, 0.6])
    packing = pack(demand, WHOLE, "first fit")  # 0.6 + 0.4, 0.6 + 0.3, 0.5 + 0.2
    assert sorted(float(one) for one in packing.sums.memory) == pytest.approx([0.7, 0.9, 1.0])


def test_best_fit_takes_the_fullest_host_where_first_fit_takes_the_first() -> None:
    demand = make_demand([1e-6] * 5, [0.0] * 5, [0.6, 0.55, 0.41, 0.3, 0.03])
    for heuristic, held in (("first fit", [0.93, 0.96]), ("best fit", [0.9, 0.99])):
        packing = pack(demand, WHOLE, heuristic)  # type: ignore[arg-type]
        assert sorted(float(one) for one in packing.sums.memory) == pytest.approx(held)


def test_in_order_of_arrival_nothing_is_sorted() -> None:
    demand = make_demand([1e-6] * 4, [0.0] * 4, [0.3, 0.3, 0.8, 0.7])
    assert pack(demand, WHOLE, "first fit").count == 3  # 0.8, 0.7 + 0.3, 0.3
    in_order = pack_in_order(demand, WHOLE, np.arange(4))
    assert [float(one) for one in in_order.sums.memory] == pytest.approx([0.6, 0.8, 0.7])
    backwards = pack_in_order(demand, WHOLE, np.arange(4)[::-1])
    assert [float(one) for one in backwards.sums.memory] == pytest.approx([1.0, 0.8, 0.3])


@pytest.mark.parametrize("heuristic", HEURISTICS)
def test_equal_servers_are_packed_at_once_as_if_one_by_one(heuristic: Heuristic) -> None:
    chance = np.random.default_rng(7)
    sizes = chance.uniform(0.02, 0.3, (5, 2))
    kind = chance.integers(0, 5, 400)
    single = make_demand(list(sizes[kind, 0]), [0.01] * 400, list(sizes[kind, 1]))
    grouped = group(single, 100)
    assert len(grouped.mean) == 5 and grouped.servers == 400
    packing = pack(grouped, ROOM, heuristic)
    assert packing.placed == 400 and is_within(ROOM, packing.sums).all()
    if heuristic in ("first fit", "best fit"):
        assert packing.count == pack(single, ROOM, heuristic).count


def test_similar_servers_are_taken_as_the_largest_of_them() -> None:
    chance = np.random.default_rng(9)
    demand = make_demand(*(list(chance.uniform(0.001, 0.05, 3000)) for _ in range(3)))
    similar = group(demand, 729)
    assert len(similar.mean) <= 729 and similar.servers == 3000
    for name in ("mean", "sd", "memory"):
        before, after = getattr(demand, name).sum(), (getattr(similar, name) * similar.count).sum()
        assert before <= after <= 1.2 * before
    assert group(demand, 3000).mean.sum() == pytest.approx(demand.mean.sum())


def test_what_fits_on_no_host_is_an_error() -> None:
    with pytest.raises(UsageError, match="a server fits on no host"):
        pack(make_demand([0.1], [0.0], [1.5]), WHOLE, "first fit")
