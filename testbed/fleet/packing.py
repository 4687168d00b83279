"""Vector bin packing of a fleet onto equal hosts, by processors and memory.

Servers as they come, and four heuristics that R. Panigrahy, K. Talwar, L. Uyeda and U. Wieder compare (Heuristics for
Vector Bin Packing, Microsoft Research 2011): first fit and best fit decreasing, which take server after server, and dot
product and norm-based greedy, which fill host after host. In these four, servers that are equal and hosts that hold the
same are handled together, so that the time depends on how many sizes there are, not on how many servers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np
from msgspec import Struct

from runtime.errors import UsageError
from testbed.fleet.arrivals import place_arrivals
from testbed.fleet.bounds import linear_cpu
from testbed.fleet.demands import Demand, Hosting, Room, Sums, add_hosting, count_fitting, is_within, ungroup
from testbed.fleet.servers import Column

Heuristic = Literal["as they come", "first fit", "best fit", "dot product", "norm greedy"]
HEURISTICS: tuple[Heuristic, ...] = get_args(Heuristic)
# So many different sizes are packed; where there are more, similar servers are taken as the largest of them.
MOST_SIZES = 1600
# After so many sizes those hosts are set aside that have room for none of the rest.
_SET_ASIDE_AFTER = 32
# A host that is filled by itself gets so many parts of what fits of the best size, one after the other.
_AT_ONCE = 4
# The order in which servers come.
_ORDER = 20080730


class Packing(Struct, frozen=True):
    """Hosts with what is on them, equal ones together: ``hosts`` and ``servers`` have how many hosts a row stands for,
    and how many servers each of them has."""

    hosts: Column
    servers: Column
    sums: Sums

    @property
    def count(self) -> int:
        return int(self.hosts.sum())

    @property
    def placed(self) -> int:
        return int((self.hosts * self.servers).sum())


def count_hosts(each: Demand, similar: Demand, hosting: Hosting, room: Room, heuristic: Heuristic) -> int:
    """Return the hosts that servers need when they are hosted: of ``each`` as it is where they are placed as they come,
    else of ``similar``, which has those that are alike in one row."""
    return pack(add_hosting(each if heuristic == "as they come" else similar, hosting), room, heuristic).count


def pack(demand: Demand, room: Room, heuristic: Heuristic) -> Packing:
    """Pack all servers and return the hosts. Raises UsageError where one does not fit on an empty host."""
    if not fits_alone(demand, room):
        raise UsageError("a server fits on no host, not even alone", "a larger --host, or less --headroom")
    return _PACKERS[heuristic](demand, room)


def fits_alone(demand: Demand, room: Room) -> bool:
    """Whether a server of each row fits on an empty host."""
    alone = Sums.empty(len(demand.mean))
    return bool((count_fitting(room, alone, demand.mean, demand.sd, demand.memory) > 0).all())


class _Open:
    """Hosts that are open, in the order in which they were opened: rows of equal ones."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.hosts = np.zeros(0, dtype=np.int64)
        self.columns = np.zeros((5, 0))  # mean, variance, sd, bytes, servers
        self._full: list[tuple[Column, Column]] = []

    @property
    def sums(self) -> Sums:
        return Sums(*self.columns[:4])

    def fits(self, mean: float, sd: float, memory: float) -> Column:
        return count_fitting(self.room, self.sums, np.float64(mean), np.float64(sd), np.float64(memory))

    def place(self, row: Column, number: int, order: Column | None = None) -> None:
        """Place so many equal servers, ``row`` each, on hosts in ``order`` (None: as they were opened), and on new ones
        when there is no room: one host is filled before the next."""
        fits = self.fits(row[0], row[2], row[3])
        ways = np.flatnonzero(fits) if order is None else order[fits[order] > 0]
        if len(ways):
            number = self._fill(row, number, fits, ways)
        if number:
            most = int(self._fits_empty(row))
            full, rest = divmod(number, most)
            self._append([full] if full else [], [row * most])
            self._append([1] if rest else [], [row * rest])

    def _fits_empty(self, row: Column) -> int:
        return int(
            count_fitting(self.room, Sums.empty(1), np.float64(row[0]), np.float64(row[2]), np.float64(row[3]))[0]
        )

    def _fill(self, row: Column, number: int, fits: Column, ways: Column) -> int:
        """Fill the hosts of rows ``ways``, one after the other; return how many servers are left over."""
        capacity = np.cumsum(fits[ways] * self.hosts[ways])
        last = int(np.searchsorted(capacity, number, side="right"))
        whole = ways[:last]
        self.columns[:, whole] += row[:, None] * fits[whole]
        if last == len(ways):
            return number - int(capacity[-1])
        rest = number - (int(capacity[last - 1]) if last else 0)
        if rest:
            self._split(int(ways[last]), row, int(fits[ways[last]]), rest)
        return 0

    def _split(self, index: int, row: Column, most: int, number: int) -> None:
        """Place what does not fill all hosts of a row: it becomes those that are full, one that has the rest, and those
        that are as they were."""
        full, rest = divmod(number, most)
        before = self.columns[:, index].copy()
        left = int(self.hosts[index]) - full - bool(rest)
        hosts = [(full, before + row * most), (int(bool(rest)), before + row * rest), (left, before)]
        kept = [(count, column) for count, column in hosts if count]
        self.hosts = np.concatenate([self.hosts[:index], [count for count, _ in kept], self.hosts[index + 1 :]])
        middle = np.stack([column for _, column in kept], axis=1)
        self.columns = np.concatenate([self.columns[:, :index], middle, self.columns[:, index + 1 :]], axis=1)

    def _append(self, hosts: list[int], columns: list[Column]) -> None:
        if hosts:
            self.hosts = np.concatenate([self.hosts, hosts])
            self.columns = np.concatenate([self.columns, np.stack(columns, axis=1)], axis=1)

    def set_aside(self, mean: float, sd: float, memory: float) -> None:
        """Set hosts aside that have no room for a server of so little."""
        has_room = self.fits(mean, sd, memory) > 0
        if not has_room.all():
            self._full.append((self.hosts[~has_room], self.columns[:, ~has_room]))
            self.hosts, self.columns = self.hosts[has_room], self.columns[:, has_room]

    def finish(self) -> Packing:
        rows = [*self._full, (self.hosts, self.columns)]
        columns = np.concatenate([column for _, column in rows], axis=1)
        hosts = np.concatenate([one for one, _ in rows]).astype(np.int64)
        return Packing(hosts, columns[4].astype(np.int64), Sums(*columns[:4]))


def _rows(demand: Demand) -> Column:
    """Return what a server of each row adds to a host: mean, variance, sd, bytes and one server."""
    return np.stack([demand.mean, demand.sd**2, demand.sd, demand.memory, np.ones(len(demand.mean))], axis=1)


def _normal(demand: Demand, room: Room) -> Column:
    """Return demands as fractions of a host, CPU and memory."""
    return np.stack([linear_cpu(demand, room) / room.cores, demand.memory / room.memory_bytes], axis=1)


def _weights(normal: Column, demand: Demand) -> Column:
    """Return how much each resource counts: its part of what is demanded of all (Panigrahy's "average")."""
    total = (normal * demand.count[:, None]).sum(axis=0)
    return total / total.sum()


def _pack_by_server(demand: Demand, room: Room, choose: Callable[[_Open, Column], Column | None]) -> Packing:
    """Place the largest servers first."""
    normal = _normal(demand, room)
    weights = _weights(normal, demand)
    order = np.argsort(-(normal @ weights), kind="stable")
    rows = _rows(demand)
    least = np.minimum.accumulate(rows[order[::-1]], axis=0)[::-1]  # of what is still to come
    hosts = _Open(room)
    for place, index in enumerate(order):
        if place % _SET_ASIDE_AFTER == 0:
            hosts.set_aside(least[place, 0], least[place, 2], least[place, 3])
        hosts.place(rows[index], int(demand.count[index]), choose(hosts, weights))
    return hosts.finish()


def _first_fit(demand: Demand, room: Room) -> Packing:
    return _pack_by_server(demand, room, lambda hosts, weights: None)


def _best_fit(demand: Demand, room: Room) -> Packing:
    """Place each where the least is left. One that gets a server stays the fullest, so equal servers fill it up."""

    def choose(hosts: _Open, weights: Column) -> Column:
        left = weights[0] * (room.cores - hosts.columns[0]) / room.cores
        left += weights[1] * (room.memory_bytes - hosts.columns[3]) / room.memory_bytes
        return np.argsort(left, kind="stable")

    return _pack_by_server(demand, room, choose)


def _pack_by_host(demand: Demand, room: Room, score: Callable[[Column, Column, Column], Column]) -> Packing:
    """Fill one host after the other with whichever server scores best; as long as there are enough servers of each
    size, the next host gets the same ones."""
    normal = _normal(demand, room)
    rows, weights = _rows(demand), _weights(normal, demand)
    left = demand.count.copy()
    hosts: list[int] = []
    held: list[Column] = []
    while len(there := np.flatnonzero(left)):
        used, host = _fill_host(room, rows[there], normal[there], left[there], weights, score)
        with np.errstate(divide="ignore"):
            repeated = int((left[there][used > 0] // used[used > 0]).min())
        left[there] -= used * repeated
        hosts.append(repeated)
        held.append(host)
    columns = np.stack(held, axis=1)
    return Packing(np.array(hosts), columns[4].astype(np.int64), Sums(*columns[:4]))


def _fill_host(
    room: Room,
    rows: Column,
    normal: Column,
    left: Column,
    weights: Column,
    score: Callable[[Column, Column, Column], Column],
) -> tuple[Column, Column]:
    """Return how many servers of each size a host gets, and what is on it then.

    Of the size that scores best, a quarter of what fits is placed at once, at least one server.
    """
    host, taken = np.zeros(5), np.zeros(2)
    used = np.zeros(len(rows), dtype=np.int64)
    alive, sizes, parts = np.arange(len(rows)), rows, normal  # those that may still get onto the host
    while True:
        if not _fits(room, host + sizes.max(axis=0)):
            fit = _fits(room, host + sizes)
            alive, sizes, parts = alive[fit], sizes[fit], parts[fit]  # a host only gets fuller
            if not len(alive):
                return used, host
        place = int(np.argmax(score(parts, 1 - taken, weights)))
        best, row = int(alive[place]), sizes[place]
        most = int(min((1 - taken[0]) / parts[place, 0], (1 - taken[1]) / parts[place, 1]))  # not sure to fit
        number = max(1, min(most // _AT_ONCE, int(left[best] - used[best])))
        if number > 1 and not _fits(room, host + number * row):
            number = 1
        used[best] += number
        host = host + number * row
        taken += number * parts[place]
        if used[best] == left[best]:
            rest = np.arange(len(alive)) != place
            alive, sizes, parts = alive[rest], sizes[rest], parts[rest]
            if not len(alive):
                return used, host


def _fits(room: Room, columns: Column) -> Column:
    """Return which hosts have room for what is on them, a row each (or one host's)."""
    return is_within(room, Sums(columns[..., 0], columns[..., 1], columns[..., 2], columns[..., 3]))


def _dot_product(demand: Demand, room: Room) -> Packing:
    """The server whose demand looks most like what is left."""
    return _pack_by_host(demand, room, lambda normal, rest, weights: normal @ (weights * np.maximum(rest, 0)))


def _norm_greedy(demand: Demand, room: Room) -> Packing:
    """The server that leaves the least, by the weighted Euclidean norm."""
    return _pack_by_host(demand, room, lambda normal, rest, weights: -(((normal - rest) ** 2) @ weights))


def _as_they_come(demand: Demand, room: Room) -> Packing:
    """Place servers in random order, from a fixed seed."""
    each = ungroup(demand)
    return pack_in_order(each, room, np.random.default_rng(_ORDER).permutation(len(each.mean)))


def pack_in_order(demand: Demand, room: Room, order: Column) -> Packing:
    """Place servers, a row each, in an order of arrival."""
    servers, sums = place_arrivals(demand, room, order)
    return Packing(np.ones(len(servers), dtype=np.int64), servers, sums)


_PACKERS: Mapping[Heuristic, Callable[[Demand, Room], Packing]] = {
    "as they come": _as_they_come,
    "first fit": _first_fit,
    "best fit": _best_fit,
    "dot product": _dot_product,
    "norm greedy": _norm_greedy,
}
