"""How many servers fit: beside the definition, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.errors import UsageError
from testbed.fleet.demands import (
    Fit,
    Host,
    Hosting,
    Room,
    Sums,
    add_hosting,
    check_each_fits,
    check_fit,
    count_fitting,
    list_demands,
    make_room,
)
from testbed.fleet.servers import Servers
from tests.testbed.fleet.exact import make_demand

GIB = 2**30


def make_servers(cpu: list[float], memory: list[float], names: tuple[str, ...] = ()) -> Servers:
    mean = np.array(cpu)
    return Servers(np.full(len(cpu), 4.0), mean, mean * 0.5, np.array(memory), "a test", (), names)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 1.0])
def test_the_closed_form_agrees_with_adding_one_after_the_other(correlation: float) -> None:
    chance = np.random.default_rng(1)
    for _ in range(200):
        room = Room(chance.uniform(1, 20), chance.uniform(1, 20), chance.uniform(0, 3), correlation)
        there = chance.uniform(0, 0.6, 3)
        sums = Sums(
            there[:1] * room.cores, (there[1:2] * room.cores / 10) ** 2, there[1:2] * room.cores / 10, there[2:] * 3
        )
        mean, sd, memory = chance.uniform(0.01, 1), chance.uniform(0, 0.5), chance.uniform(0.01, 1)
        found = int(count_fitting(room, sums, mean, sd, memory)[0])

        for count, expected in ((found, True), (found + 1, False)):
            variance = (1 - correlation) * (sums.variance + count * sd**2) + correlation * (sums.sd + count * sd) ** 2
            wanted = sums.mean + count * mean + room.deviations * np.sqrt(variance)
            fit = wanted[0] <= room.cores + 1e-9 and (sums.memory + count * memory)[0] <= room.memory_bytes + 1e-9
            assert fit == expected or count == 0


def test_the_chance_of_overload_is_what_was_asked_for() -> None:
    """Of independent Gaussians, as many as fit want more than there is about as often as allowed."""
    chance, fit = np.random.default_rng(6), Fit(headroom=0.0, overload=0.01)
    room = make_room(Host(16, GIB), fit, Hosting())
    number = int(count_fitting(room, Sums.empty(1), np.float64(0.4), np.float64(0.3), np.float64(1))[0])
    wanted = chance.normal(0.4, 0.3, (40_000, number)).sum(axis=1)
    assert 0.002 < (wanted > 16).mean() <= 0.0115
    assert (chance.normal(0.4, 0.3, (40_000, number + 2)).sum(axis=1) > 16).mean() > 0.01


def test_hosting_adds_cpu_and_memory() -> None:
    demand = add_hosting(make_demand([1.0], [0.5], [10.0]), Hosting(1.5, 0.1, 5.0, 100.0))
    assert (demand.mean[0], demand.sd[0], demand.memory[0]) == pytest.approx((1.6, 0.75, 15.0))
    assert make_room(Host(10, 1000), Fit(headroom=0.5), Hosting(memory_once=100)).memory_bytes == pytest.approx(400)


@pytest.mark.parametrize(
    ("fit", "words"),
    [
        (Fit(headroom=1.0), "leaves no room"),
        (Fit(headroom=-0.1), "headroom"),
        (Fit(overload=0.0), "overload"),
        (Fit(overload=0.7), "overload"),
        (Fit(correlation=2.0), "correlation"),
    ],
)
def test_a_fit_that_is_none_is_refused(fit: Fit, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_fit(fit)


def test_headroom_that_leaves_no_memory_beside_the_platform_is_refused() -> None:
    with pytest.raises(UsageError, match="leaves no memory on a host of 1 GiB"):
        make_room(Host(4, GIB), Fit(headroom=0.95), Hosting(memory_once=0.1 * GIB))
    with pytest.raises(UsageError, match="a host of 0 processors"):
        make_room(Host(0, GIB), Fit(), Hosting())


def test_servers_larger_than_any_host_are_named() -> None:
    servers = make_servers([0.1, 0.1, 9.0, 0.1], [1.0, 9e12, 1.0, 1.0], ("web", "db", "batch", "dns"))
    host = Host(8, 64 * GIB)
    with pytest.raises(UsageError) as caught:
        check_each_fits(servers, Hosting(), make_room(host, Fit(), Hosting()), host)
    assert "2 of 4 servers fit on no host of 8 processors and 64 GiB: db, batch; the first needs" in str(caught.value)


def test_a_list_of_demands_is_what_the_servers_have() -> None:
    demand = list_demands(make_servers([1.0, 2.0], [3.0, 4.0]))
    assert demand.servers == 2 and list(demand.mean) == [1.0, 2.0] and list(demand.sd) == [0.5, 1.0]
