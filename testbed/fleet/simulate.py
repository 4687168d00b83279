"""Consolidates a fleet on each platform: hosts, utilisation, power and cost, with what the footprints' intervals make
of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from runtime.errors import UsageError
from testbed.fleet.bounds import Bound, find_bound
from testbed.fleet.demands import (
    Demand,
    Fit,
    Host,
    Hosting,
    add_hosting,
    check_each_fits,
    group,
    list_demands,
    make_room,
)
from testbed.fleet.draws import Drawn, Draws, Interval, draw_platforms, find_interval, find_ratio_interval
from testbed.fleet.hosting import compute_hosting, find_base, take_estimates
from testbed.fleet.packing import HEURISTICS, MOST_SIZES, Heuristic, count_hosts, fits_alone
from testbed.fleet.power import Bill, PowerModel, Prices, bill_hosts, bill_servers, check_power, describe_power
from testbed.fleet.servers import Servers, take_first
from testbed.footprints import Footprint

DRAWS = 1000
# The ends of intervals are packed of so many servers: how the number of hosts moves, a part shows as well as the whole.
SAMPLE = 10_000


class Spares(Struct, frozen=True):
    """So many hosts stay empty in every cluster of ``cluster`` hosts: N + 1 is one."""

    hosts: int = 1
    cluster: int = 32

    def count(self, hosts: int) -> int:
        """Return the spare hosts beside so many that are used."""
        return math.ceil(hosts / self.cluster) * self.hosts


class Question(Struct, frozen=True):
    """What is to be simulated; ``draws`` of the footprints are made from ``seed``."""

    servers: Servers
    footprints: tuple[Footprint, ...]
    host: Host
    fit: Fit = Fit()
    spares: Spares = Spares()
    power: PowerModel = PowerModel()
    prices: Prices = Prices()
    seed: int = 1
    draws: int = DRAWS


class Packed(Struct, frozen=True):
    """Hosts that a heuristic needs, and how far that is above the lower bound (0.05: 5 %)."""

    heuristic: Heuristic
    hosts: int
    distance: float


class Hosted(Struct, frozen=True):
    """A fleet on a platform.

    ``hosts`` are those that hold servers, by the best of ``packed``; ``spare`` are empty. ``utilisation`` is the
    fraction of all hosts' processors that is busy, ``own`` what of it the servers' own work is, ``memory`` the fraction
    of memory in use.
    """

    platform: str
    label: str
    emulated: bool
    hosting: Hosting
    bound: Bound
    packed: tuple[Packed, ...]
    hosts: Interval
    spare: int
    servers_per_host: float
    utilisation: float
    own: float
    memory: float
    bill: Bill
    without_interval: tuple[str, ...]

    @property
    def machines(self) -> int:
        return self.bill.machines


class Pair(Struct, frozen=True):
    """How many times as many hosts a platform needs as the base."""

    platform: str
    base: str
    emulated: bool
    ratio: Interval


class Outcome(Struct, frozen=True):
    """A fleet before and after, on each platform, with all that it rests on.

    ``rounding`` is by how much the lower bound grew as similar servers were taken as equal: a part of each distance.
    ``left_out`` has the emulated platforms on which some server fits on no host, and why.
    """

    servers: int
    source: str
    utilisation: float
    before: Bill
    host: Host
    base: str
    rounding: float
    hosted: tuple[Hosted, ...]
    pairs: tuple[Pair, ...]
    left_out: tuple[tuple[str, str], ...]
    assumptions: tuple[str, ...]


def simulate(question: Question) -> Outcome:
    """Return what becomes of the fleet on each platform. Raises UsageError for a server that fits on no host, and for a
    host or a headroom that leaves no room; an emulated platform is left out instead, for that is the emulator's
    price."""
    check_power(question.power, question.prices)
    base = find_base(question.footprints)
    footprints, left_out = _find_fitting(question, base)
    bare = list_demands(question.servers)
    similar = _group(question, bare, base, footprints)
    drawn = draw_platforms(_make_draws(question, base), footprints, similar)
    of_base = next(one for one in drawn if one.footprint is base)
    packed = _pack(bare, similar, of_base, HEURISTICS)
    best = min(packed, key=lambda one: one.hosts).heuristic
    sample = list_demands(take_first(question.servers, SAMPLE))
    hosted = tuple(
        _host(question, bare, sample, one, packed if one is of_base else _pack(bare, similar, one, (best,)))
        for one in drawn
    )
    by_name = {one.platform: one for one in hosted}
    least = by_name[base.platform].bound.hosts
    return Outcome(
        question.servers.count,
        question.servers.source,
        question.servers.utilisation,
        bill_servers(question.servers.count, question.servers.utilisation, question.power, question.prices),
        question.host,
        base.platform,
        find_bound(add_hosting(similar, of_base.hosting), of_base.room).hosts / least - 1,
        hosted,
        tuple(_pair(sample, one, of_base, best, by_name) for one in drawn if one is not of_base),
        left_out,
        describe_assumptions(question),
    )


def _make_draws(question: Question, base: Footprint) -> Draws:
    return Draws(base, question.host, question.fit, question.seed, question.draws)


def _find_fitting(question: Question, base: Footprint) -> tuple[tuple[Footprint, ...], tuple[tuple[str, str], ...]]:
    """Return the footprints with which every server fits on a host, and the emulated platforms without, each with
    why."""
    fitting, left_out = [], []
    for footprint in question.footprints:
        hosting = compute_hosting(take_estimates(footprint), take_estimates(base))
        try:
            room = make_room(question.host, question.fit, hosting)
            check_each_fits(question.servers, hosting, room, question.host)
        except UsageError as error:
            if not footprint.emulated or footprint is base:
                raise
            left_out.append((footprint.label, str(error).partition("\n")[0]))
        else:
            fitting.append(footprint)
    return tuple(fitting), tuple(left_out)


def _group(question: Question, bare: Demand, base: Footprint, footprints: Sequence[Footprint]) -> Demand:
    """Return the servers with similar ones taken together, unless one of these would fit on no host."""
    similar = group(bare, MOST_SIZES)
    hostings = [compute_hosting(take_estimates(one), take_estimates(base)) for one in footprints]
    alone = (fits_alone(add_hosting(similar, one), make_room(question.host, question.fit, one)) for one in hostings)
    return similar if all(alone) else group(bare, bare.servers)


def _pack(bare: Demand, similar: Demand, one: Drawn, heuristics: Sequence[Heuristic]) -> tuple[Packed, ...]:
    """Pack a platform's servers by each heuristic, beside the lower bound of the servers as they are."""
    least = find_bound(add_hosting(bare, one.hosting), one.room).hosts
    counts = ((name, count_hosts(bare, similar, one.hosting, one.room, name)) for name in heuristics)
    return tuple(Packed(name, hosts, hosts / least - 1) for name, hosts in counts)


def _host(question: Question, bare: Demand, sample: Demand, one: Drawn, packed: tuple[Packed, ...]) -> Hosted:
    best = min(packed, key=lambda each: each.hosts)
    spare = question.spares.count(best.hosts)
    machines = best.hosts + spare
    demand = add_hosting(bare, one.hosting)
    processors = machines * question.host.cores
    utilisation = float(demand.mean.sum()) / processors
    memory = float(demand.memory.sum()) + best.hosts * one.hosting.memory_once
    return Hosted(
        one.footprint.platform,
        one.footprint.label,
        one.footprint.emulated,
        one.hosting,
        find_bound(demand, one.room),
        packed,
        find_interval(sample, one, best.hosts, best.heuristic),
        spare,
        question.servers.count / best.hosts,
        utilisation,
        float(bare.mean.sum()) / processors,
        memory / (machines * question.host.memory_bytes),
        bill_hosts(machines, utilisation, question.power, question.prices),
        one.footprint.without_interval,
    )


def _pair(sample: Demand, one: Drawn, base: Drawn, heuristic: Heuristic, by_name: dict[str, Hosted]) -> Pair:
    platform, name = one.footprint.platform, base.footprint.platform
    value = by_name[platform].hosts.value / by_name[name].hosts.value
    ratio = find_ratio_interval(sample, one, base, value, heuristic)
    return Pair(platform, name, one.footprint.emulated or base.footprint.emulated, ratio)


def describe_assumptions(question: Question) -> tuple[str, ...]:
    """Return what the result rests on, a sentence each."""
    host, fit, spares = question.host, question.fit, question.spares
    base = find_base(question.footprints)
    return (
        *question.servers.assumptions,
        f"a host has {host.cores:g} processors and {host.memory_bytes / 2**30:.4g} GiB,"
        f" of which {fit.headroom:.0%} stay free",
        f"the chance that the servers of a host want more CPU than the rest is at most {fit.overload:g} (sum of"
        f" near-Gaussians, {fit.deviations:.2f} standard deviations; correlation {fit.correlation:g})",
        f"{spares.hosts} spare of every {spares.cluster} hosts" if spares.hosts else "no spare hosts",
        f"hosting adds what was measured beyond {base.label}: CPU by the ratio of CPU time per request, memory by the"
        " difference of further copies, once for a host what its first copy takes beyond a further one",
        *describe_power(question.power, question.prices),
    )
