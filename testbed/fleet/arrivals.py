"""Places servers as they come, as a scheduler does that knows nothing of those to come: a first fit without sorting.

Servers of all sizes are mixed on each host then, which on two resources wastes less than placing the largest first. It
is plain Python over the few hosts that have room, for servers are not taken together here: each has its own size.
"""

from __future__ import annotations

import math

import numpy as np

from testbed.fleet.demands import Demand, Room, Sums
from testbed.fleet.servers import Column

# Of hosts with room, only so many of the newest are looked at: older ones have room for next to nothing.
_LOOKED_AT = 64
_SLACK = 1e-9


def place_arrivals(demand: Demand, room: Room, order: Column) -> tuple[Column, Sums]:
    """Place the rows of a demand in ``order``, one server each, and return how many servers each host has, and their
    sums.

    Every server must fit on an empty host.
    """
    cores, memory_bytes = room.cores * (1 + _SLACK), room.memory_bytes * (1 + _SLACK)
    z, r = room.deviations, room.correlation
    least = float(demand.mean.min()), float(demand.memory.min())
    hosts: list[list[float]] = []  # mean, variance, sd, bytes, servers
    looked_at: list[list[float]] = []
    rows = zip(demand.mean[order].tolist(), demand.sd[order].tolist(), demand.memory[order].tolist(), strict=True)
    for mean, sd, memory in rows:
        variance = sd * sd
        for host in looked_at:
            if host[3] + memory > memory_bytes:
                continue
            spread = (1 - r) * (host[1] + variance) + r * (host[2] + sd) ** 2
            if host[0] + mean + z * math.sqrt(spread) <= cores:
                break
        else:
            host = [0.0, 0.0, 0.0, 0.0, 0.0]
            hosts.append(host)
            looked_at.append(host)
            if len(looked_at) > _LOOKED_AT:
                del looked_at[0]
        host[0] += mean
        host[1] += variance
        host[2] += sd
        host[3] += memory
        host[4] += 1
        spread = (1 - r) * host[1] + r * host[2] ** 2
        if host[3] + least[1] > memory_bytes or host[0] + least[0] + z * math.sqrt(spread) > cores:
            looked_at = [one for one in looked_at if one is not host]
    columns = np.array(hosts).T
    return columns[4].astype(np.int64), Sums(columns[0], columns[1], columns[2], columns[3])
