"""Cell compaction: how small a cell could be and still hold its servers, as a scheduler would place them.

A. Verma and others (Large-scale Cluster Management at Google with Borg, EuroSys 2015, section 5.1) remove machines
until the workload, placed afresh, no longer fits, several times in another order, and take the 90th percentile. Hosts
are equal here, so which one is removed makes no difference, and what still fits is what a first fit in that order of
arrival opens.
"""

from __future__ import annotations

import math

import numpy as np
from msgspec import Struct

from testbed.fleet.demands import Hosting, Room, add_hosting, list_demands
from testbed.fleet.packing import pack_in_order
from testbed.fleet.parallel import spread
from testbed.fleet.servers import Servers, take_first

# A larger fleet is compacted by a part of it: a scheduler has cells, too.
LARGEST_CELL = 10_000
TIMES = 11
_PERCENTILE = 0.9


class Compaction(Struct, frozen=True):
    """Hosts that a cell of ``servers`` needs in each order of arrival; ``hosts`` is their 90th percentile."""

    servers: int
    hosts: int
    each: tuple[int, ...]


class _Cell(Struct, frozen=True):
    servers: Servers
    hosting: Hosting
    room: Room
    seed: int


def compact(servers: Servers, hosting: Hosting, room: Room, seed: int, workers: int = 1) -> Compaction:
    """Return how far a cell of the first servers can be compacted, in ``TIMES`` orders of arrival."""
    cell = take_first(servers, LARGEST_CELL)
    orders = [_Cell(cell, hosting, room, seed + index) for index in range(TIMES)]
    each = tuple(sorted(spread(_count_hosts, orders, workers)))
    return Compaction(cell.count, each[math.ceil(_PERCENTILE * len(each)) - 1], each)


def _count_hosts(cell: _Cell) -> int:
    """Return the hosts that a first fit opens when equal servers that stand together arrive together."""
    demand = add_hosting(list_demands(cell.servers), cell.hosting)
    rows = np.stack([demand.mean, demand.sd, demand.memory], axis=1)
    begins = np.concatenate([[True], (np.diff(rows, axis=0) != 0).any(axis=1)])
    batch = np.cumsum(begins) - 1
    places = np.random.default_rng(cell.seed).permutation(int(batch[-1]) + 1)
    return pack_in_order(demand, cell.room, np.argsort(places[batch], kind="stable")).count
