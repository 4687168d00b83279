"""Lower bounds beside a solver of linear programs, and beside every packing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from testbed.fleet.bounds import find_bound, find_relaxed, linear_cpu
from testbed.fleet.demands import Demand, Room
from tests.testbed.fleet.exact import draw_demand, find_fewest, fits_together, make_demand


def solve_relaxation(demand: Demand, room: Room, hosts: int) -> float:
    """The fewest hosts, and parts of one, when servers may be cut: x[i, h] of server i on h, y[h] of h is on."""
    count = len(demand.mean)
    size = np.stack([linear_cpu(demand, room) / room.cores, demand.memory / room.memory_bytes])
    cost = np.concatenate([np.zeros(count * hosts), np.ones(hosts)])
    within = np.zeros((2 * hosts, len(cost)))
    whole = np.zeros((count, len(cost)))
    for host in range(hosts):
        for resource in range(2):
            row = 2 * host + resource
            within[row, host : count * hosts : hosts] = size[resource]
            within[row, count * hosts + host] = -1
    for server in range(count):
        whole[server, server * hosts : (server + 1) * hosts] = 1
    found = linprog(cost, within, np.zeros(2 * hosts), whole, np.ones(count), bounds=(0, 1))
    assert found.success
    return float(found.fun)


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_the_relaxation_is_what_a_solver_finds(correlation: float) -> None:
    chance, room = np.random.default_rng(1), Room(1.0, 1.0, 2.0, correlation)
    for _ in range(5):
        demand = draw_demand(chance, 7)
        assert find_relaxed(demand, room) == pytest.approx(solve_relaxation(demand, room, 7), rel=1e-6)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 1.0])
def test_servers_that_fit_on_a_host_have_no_more_linear_cpu_than_it_has(correlation: float) -> None:
    """The inequality that the bound by CPU rests on."""
    chance, room = np.random.default_rng(2), Room(1.0, 1e9, 2.33, correlation)
    seen = 0
    for _ in range(300):
        demand = draw_demand(chance, 12)
        chosen = [int(one) for one in chance.choice(12, chance.integers(1, 6), replace=False)]
        if fits_together(demand, room, chosen):
            seen += 1
            assert linear_cpu(demand, room)[chosen].sum() <= room.cores + 1e-9
    assert seen > 50


def test_servers_that_cannot_share_a_host_are_counted() -> None:
    demand = make_demand([1e-6] * 5, [0.0] * 5, [0.6, 0.6, 0.6, 0.45, 0.45])
    room = Room(1.0, 1.0, 0.0, 0.0)
    assert find_relaxed(demand, room) == pytest.approx(2.7)
    bound = find_bound(demand, room)
    assert (bound.hosts, bound.binds) == (4, "memory") and find_fewest(demand, room) == 4


def test_the_bound_is_at_most_the_optimum() -> None:
    chance, room = np.random.default_rng(4), Room(1.0, 1.0, 1.0, 0.2)
    tight = 0
    for _ in range(40):
        demand = draw_demand(chance, 7)
        bound, fewest = find_bound(demand, room).hosts, find_fewest(demand, room)
        assert bound <= fewest
        tight += bound == fewest
    assert tight >= 20
