"""The fewest hosts of a tiny fleet, found by trying everything: what heuristics and bounds are held to."""

from __future__ import annotations

import numpy as np

from testbed.fleet.demands import Demand, Room


def make_demand(mean: list[float], sd: list[float], memory: list[float]) -> Demand:
    return Demand(np.array(mean), np.array(sd), np.array(memory), np.ones(len(mean), dtype=np.int64))


def draw_demand(chance: np.random.Generator, count: int) -> Demand:
    mean = chance.uniform(0.02, 0.6, count)
    return make_demand(list(mean), list(mean * chance.uniform(0, 0.3, count)), list(chance.uniform(0.02, 0.7, count)))


def fits_together(demand: Demand, room: Room, chosen: list[int]) -> bool:
    """Whether these servers are within a host's room, by the definition itself."""
    mean, sd, memory = demand.mean[chosen].sum(), demand.sd[chosen], demand.memory[chosen].sum()
    variance = (1 - room.correlation) * (sd**2).sum() + room.correlation * sd.sum() ** 2
    return bool(mean + room.deviations * np.sqrt(variance) <= room.cores + 1e-9 and memory <= room.memory_bytes + 1e-9)


def find_fewest(demand: Demand, room: Room) -> int:
    """Return the fewest hosts: servers are put on each host that has some, and on one new one."""
    best = len(demand.mean)

    def place(index: int, hosts: list[list[int]]) -> None:
        nonlocal best
        if len(hosts) >= best:
            return
        if index == len(demand.mean):
            best = len(hosts)
            return
        for host in hosts:
            host.append(index)
            if fits_together(demand, room, host):
                place(index + 1, hosts)
            host.pop()
        hosts.append([index])
        place(index + 1, hosts)
        hosts.pop()

    place(0, [])
    return best
