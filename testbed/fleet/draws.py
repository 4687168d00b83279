"""Carries the intervals of footprints through to numbers of hosts, by draws.

The lower bound of hosts is computed for each draw of the footprints. The draws at the ends of the middle 95 % of these
are packed in truth, of a sample of the fleet, and move the number of hosts by as much as they move the sample's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from runtime.errors import UsageError
from testbed.fleet.bounds import find_relaxed
from testbed.fleet.demands import Demand, Fit, Host, Hosting, Room, add_hosting, group, make_room
from testbed.fleet.hosting import Figures, compute_hosting, draw_figures, take_estimates
from testbed.fleet.packing import MOST_SIZES, Heuristic, count_hosts
from testbed.fleet.servers import Column
from testbed.footprints import Footprint
from testbed.statistics import LEVEL

_TOO_LARGE = "at its end some server fits on no host"


class Draws(Struct, frozen=True):
    """How footprints are drawn: ``count`` times from ``seed``, those of the ``base`` the same for all platforms; and
    the hosts that servers must fit on."""

    base: Footprint
    host: Host
    fit: Fit
    seed: int
    count: int


class Drawn(Struct, frozen=True):
    """A platform with its hosting at the estimates and in draws, and the lower bound of hosts of each draw."""

    draws: Draws
    footprint: Footprint
    hosting: Hosting
    room: Room
    figures: Figures
    of_base: Figures
    bounds: Column

    def make_hosting(self, index: int) -> tuple[Hosting, Room]:
        """Return the hosting of one draw, and the room that it leaves on a host."""
        hosting = compute_hosting(self.figures, self.of_base, index)
        return hosting, make_room(self.draws.host, self.draws.fit, hosting)

    @property
    def has_intervals(self) -> bool:
        """Whether all figures that it rests on have an interval of 95 %."""
        return not (self.footprint.without_interval or self.draws.base.without_interval)


class Interval(Struct, frozen=True):
    """A figure and what it may be, given the footprints: an interval of 95 %, or a range of few trials where
    ``is_interval`` is false; both None where the footprints have neither, or for the reason ``why``."""

    value: float
    low: float | None
    high: float | None
    is_interval: bool
    why: str = ""


def draw_platforms(draws: Draws, footprints: Sequence[Footprint], demand: Demand) -> list[Drawn]:
    """Return each platform with its draws, for servers that need so much by themselves."""
    central = take_estimates(draws.base)
    of_base = draw_figures(draws.base, draws.count, np.random.default_rng([draws.seed, 0]))
    drawn = []
    for number, footprint in enumerate(footprints):
        hosting = compute_hosting(take_estimates(footprint), central)
        chance = np.random.default_rng([draws.seed, number + 1])
        figures = of_base if footprint is draws.base else draw_figures(footprint, draws.count, chance)
        one = Drawn(draws, footprint, hosting, make_room(draws.host, draws.fit, hosting), figures, of_base, None)
        hostings = (one.make_hosting(index) for index in range(draws.count))
        bounds = np.array([find_relaxed(add_hosting(demand, each), room) for each, room in hostings])
        drawn.append(Drawn(draws, footprint, hosting, one.room, figures, of_base, bounds))
    return drawn


def find_interval(sample: Demand, one: Drawn, hosts: int, heuristic: Heuristic) -> Interval:
    """Return a platform's hosts with what they may be."""
    similar = group(sample, MOST_SIZES)
    try:
        central = count_hosts(sample, similar, one.hosting, one.room, heuristic)
        ends = [count_hosts(sample, similar, *one.make_hosting(index), heuristic) for index in find_ends(one.bounds)]
    except UsageError:
        return Interval(hosts, None, None, False, _TOO_LARGE)
    return make_interval(hosts, [hosts * count / central for count in ends], one.has_intervals)


def find_ratio_interval(sample: Demand, one: Drawn, base: Drawn, ratio: float, heuristic: Heuristic) -> Interval:
    """Return how many times as many hosts a platform needs as the base, with what that may be: in the same draw both
    have the same figures of the base."""
    similar = group(sample, MOST_SIZES)

    def divide(hostings: Sequence[tuple[Hosting, Room]]) -> float:
        of_one, of_base = (count_hosts(sample, similar, *each, heuristic) for each in hostings)
        return of_one / of_base

    indices = find_ends(one.bounds / base.bounds)
    try:
        central = divide([(each.hosting, each.room) for each in (one, base)])
        ends = [divide([each.make_hosting(index) for each in (one, base)]) for index in indices]
    except UsageError:
        return Interval(ratio, None, None, False, _TOO_LARGE)
    return make_interval(ratio, [ratio * end / central for end in ends], one.has_intervals and base.has_intervals)


def find_ends(values: Column) -> tuple[int, int]:
    """Return the indices of the draws at the ends of the middle 95 %."""
    order = np.argsort(values, kind="stable")
    beyond = math.floor(len(order) * (1 - LEVEL) / 2)
    return int(order[beyond]), int(order[len(order) - 1 - beyond])


def make_interval(value: float, ends: Sequence[float], has_intervals: bool) -> Interval:
    """Return a figure with its interval, or range where not all figures behind it have an interval."""
    low, high = min(value, *ends), max(value, *ends)
    if low == high and not has_intervals:
        return Interval(value, None, None, False)
    return Interval(value, low, high, has_intervals)
