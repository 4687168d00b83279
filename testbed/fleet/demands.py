"""What servers demand of a host once they are hosted, and when so many of them still fit on one.

Memory adds up. CPU is a sum of near-Gaussians: so many servers fit as long as the chance that they want more than the
host has stays below a limit. P. Janus and K. Rzadca (SLO-aware Colocation of Data Center Tasks Based on Instantaneous
Processor Requirements, SoCC 2017) found high percentiles of sums of ten tasks or more estimated well so.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from msgspec import Struct

from runtime.errors import UsageError
from testbed.fleet.servers import Column, Servers

# Absorbs rounding where a demand fits exactly.
_SLACK = 1e-9
_UNLIMITED = 2**40


class Host(Struct, frozen=True):
    """A host: processors and bytes of memory."""

    cores: float
    memory_bytes: float


class Fit(Struct, frozen=True):
    """When servers still fit on a host.

    ``headroom`` is the fraction of a host's processors and memory that stays free, ``overload`` the chance, at any
    moment, that its servers want more CPU than the rest. ``correlation`` is that between the loads of any two servers.
    """

    headroom: float = 0.1
    overload: float = 0.01
    correlation: float = 0.0

    @property
    def deviations(self) -> float:
        """How many standard deviations above the mean sum must fit."""
        return NormalDist().inv_cdf(1 - self.overload)


class Hosting(Struct, frozen=True):
    """What hosting a server adds to what it needs by itself: a factor to its CPU, processors that it keeps busy when
    idle, bytes for each server, and bytes once for a host that has any."""

    cpu_factor: float = 1.0
    cpu_idle: float = 0.0
    memory_each: float = 0.0
    memory_once: float = 0.0


class Room(Struct, frozen=True):
    """What servers share on a host: processors and bytes, without headroom and what the platform takes once."""

    cores: float
    memory_bytes: float
    deviations: float
    correlation: float


class Demand(Struct, frozen=True):
    """Hosted servers in columns: processors busy (mean, standard deviation) and bytes; ``count`` is how many servers
    each row stands for."""

    mean: Column
    sd: Column
    memory: Column
    count: Column

    @property
    def servers(self) -> int:
        return int(self.count.sum())


def check_fit(fit: Fit) -> Fit:
    """Return the fit. Raises UsageError for one that leaves no room, or is no chance."""
    if not 0 <= fit.headroom < 1:
        raise UsageError(f"a headroom of {fit.headroom:.0%} leaves no room on a host", "from 0 to below 100 %")
    if not 0 < fit.overload <= 0.5:
        raise UsageError(f"an overload of {fit.overload:g}", "a chance above 0, at most 0.5")
    if not 0 <= fit.correlation <= 1:
        raise UsageError(f"a correlation of {fit.correlation:g}", "from 0 to 1")
    return fit


def make_room(host: Host, fit: Fit, hosting: Hosting) -> Room:
    """Return what servers share on a host. Raises UsageError where nothing is left for them."""
    if not (host.cores > 0 and host.memory_bytes > 0):
        raise UsageError(f"a host of {host.cores:g} processors and {host.memory_bytes:g} bytes", "both more than 0")
    check_fit(fit)
    free = 1 - fit.headroom
    memory = host.memory_bytes * free - max(0.0, hosting.memory_once)
    if memory <= 0:
        raise UsageError(
            f"a headroom of {fit.headroom:.0%} leaves no memory on a host of {host.memory_bytes / 2**30:.3g} GiB: the"
            f" platform itself takes {hosting.memory_once / 2**30:.3g}",
            "a larger host, or less headroom",
        )
    return Room(host.cores * free, memory, fit.deviations, fit.correlation)


def list_demands(servers: Servers) -> Demand:
    """Return what servers need by themselves, a row a server."""
    return Demand(servers.cpu_mean, servers.cpu_sd, servers.memory_bytes, np.ones(servers.count, dtype=np.int64))


def add_hosting(demand: Demand, hosting: Hosting) -> Demand:
    """Return what servers demand when they are hosted."""
    return Demand(
        demand.mean * hosting.cpu_factor + max(0.0, hosting.cpu_idle),
        demand.sd * hosting.cpu_factor,
        np.maximum(demand.memory + hosting.memory_each, 1.0),
        demand.count,
    )


def check_each_fits(servers: Servers, hosting: Hosting, room: Room, host: Host) -> None:
    """Raise UsageError that names the servers that fit on no host, not even alone."""
    demand = add_hosting(list_demands(servers), hosting)
    most = count_fitting(room, Sums.empty(servers.count), demand.mean, demand.sd, demand.memory)
    if (bad := most < 1).any():
        worst = int(np.flatnonzero(bad)[0])
        raise UsageError(
            f"{int(bad.sum())} of {servers.count} servers fit on no host of {host.cores:g} processors and"
            f" {host.memory_bytes / 2**30:.4g} GiB: {servers.list_names(bad)}; the first needs"
            f" {demand.mean[worst]:.3g} processors (sd {demand.sd[worst]:.3g}) and"
            f" {demand.memory[worst] / 2**30:.4g} GiB, hosted and with {room.deviations:.2f} deviations of room",
            "a larger --host, less --headroom, or leave these servers out",
        )


class Sums(Struct, frozen=True):
    """What is on hosts already, in columns: sums of means, variances, standard deviations and bytes."""

    mean: Column
    variance: Column
    sd: Column
    memory: Column

    @classmethod
    def empty(cls, hosts: int) -> Sums:
        zero = np.zeros(hosts)
        return cls(zero, zero, zero, zero)


def count_fitting(room: Room, sums: Sums, mean: Column, sd: Column, memory: Column) -> Column:
    """Return how many equal servers of ``mean``, ``sd`` and ``memory`` still fit on each host.

    With k more of them a host wants mean + k m processors, of variance (1 - r)(V + k s^2) + r (S + k s)^2, where V and
    S sum the variances and standard deviations and r is the correlation. Demand plus z deviations equals the room where
    a quadratic in k has its smaller root, which is found without cancellation.
    """
    z2 = room.deviations**2
    rest, r = room.cores - sums.mean, room.correlation
    q0 = (1 - r) * sums.variance + r * sums.sd**2
    q1 = (1 - r) * sd**2 + 2 * r * sums.sd * sd
    a, b, c = mean**2 - z2 * r * sd**2, 2 * rest * mean + z2 * q1, rest**2 - z2 * q0
    with np.errstate(divide="ignore", invalid="ignore"):
        root = 2 * c / (b + np.sqrt(np.maximum(b * b - 4 * a * c, 0)))
        of_memory = (room.memory_bytes - sums.memory) / memory
    of_cpu = np.where((rest > 0) & (c > 0), np.where(np.isfinite(root), root, _UNLIMITED), 0.0)
    return np.floor(np.clip(np.minimum(of_cpu, of_memory), 0, _UNLIMITED) + _SLACK).astype(np.int64)


def is_within(room: Room, sums: Sums) -> Column:
    """Return which hosts have room for what is on them."""
    variance = (1 - room.correlation) * sums.variance + room.correlation * sums.sd**2
    wanted = sums.mean + room.deviations * np.sqrt(variance)
    return (wanted <= room.cores * (1 + _SLACK)) & (sums.memory <= room.memory_bytes * (1 + _SLACK))


def group(demand: Demand, most: int) -> Demand:
    """Return equal servers as one row; where there are more than ``most`` sizes, similar ones, too, as large in
    everything as the largest of them.

    What is packed by the result fits in truth, for nothing gets smaller. Similar ones are found by cutting the servers,
    by memory, into slices that need the same of it in all, and each of these by CPU in the same way: most cells lie
    where most of the demand is.
    """
    grouped = _merge(demand, _number_equal(demand))
    if len(grouped.mean) <= most:
        return grouped
    columns = [grouped.memory, grouped.mean]
    columns += [] if _has_one_ratio(grouped) else [grouped.sd]
    columns = [one for one in columns if np.ptp(one) > 0]
    parts = max(1, math.floor(most ** (1 / max(1, len(columns))) + _SLACK))
    cells = np.zeros(len(grouped.mean), dtype=np.int64)
    for column in columns:
        before, cells = cells, np.zeros(len(cells), dtype=np.int64)
        for number in np.unique(before):
            inside = np.flatnonzero(before == number)
            cells[inside] = number * parts + _cut(column[inside], grouped.count[inside], parts)
    return _merge(grouped, cells)


def ungroup(demand: Demand) -> Demand:
    """Return a row for each server."""
    columns = (np.repeat(one, demand.count) for one in (demand.mean, demand.sd, demand.memory))
    mean, sd, memory = columns
    return Demand(mean, sd, memory, np.ones(len(mean), dtype=np.int64))


def _has_one_ratio(demand: Demand) -> bool:
    """Whether all standard deviations are the same part of their means, as those of drawn servers are."""
    return bool(np.allclose(demand.sd, demand.mean * (demand.sd.sum() / demand.mean.sum()), rtol=1e-6))


def _number_equal(demand: Demand) -> Column:
    rows = np.stack([demand.mean, demand.sd, demand.memory], axis=1)
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)


def _cut(sizes: Column, counts: Column, parts: int) -> Column:
    """Return a number from 0 for each row: rows are cut, in order of size, into parts of about the same sum."""
    order = np.argsort(sizes, kind="stable")
    ends = np.cumsum(sizes[order] * counts[order])
    numbers = np.zeros(len(sizes), dtype=np.int64)
    if len(ends) and ends[-1] > 0:
        numbers[order] = np.minimum((ends / ends[-1] * parts - _SLACK).astype(np.int64), parts - 1)
    return numbers


def _merge(demand: Demand, cells: Column) -> Demand:
    """Return one row for each number in ``cells``, with the largest of each column."""
    order = np.argsort(cells, kind="stable")
    starts = np.flatnonzero(np.diff(cells[order], prepend=-1))
    mean, sd, memory = (
        np.maximum.reduceat(column[order], starts) for column in (demand.mean, demand.sd, demand.memory)
    )
    return Demand(mean, sd, memory, np.add.reduceat(demand.count[order], starts))
