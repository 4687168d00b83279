"""Lower bounds: fewer hosts than these no packing needs."""

from __future__ import annotations

import math

import numpy as np
from msgspec import Struct

from testbed.fleet.demands import Demand, Room
from testbed.fleet.servers import Column

_SLACK = 1e-9
# So many thresholds are tried: each gives a bound, more of them give a better one.
_THRESHOLDS = 64


class Bound(Struct, frozen=True):
    """Lower bounds of the number of hosts, by CPU and by memory; ``hosts`` is the larger, rounded up."""

    cpu: float
    memory: float

    @property
    def hosts(self) -> int:
        return max(1, math.ceil(max(self.cpu, self.memory) - _SLACK))

    @property
    def binds(self) -> str:
        """Which of the two is the larger."""
        return "memory" if self.memory >= self.cpu else "CPU"


def linear_cpu(demand: Demand, room: Room) -> Column:
    """Return processors for each row, of which no host that is within its room holds more than it has.

    A host with means M and standard deviation sqrt(V) has M + z sqrt(V) <= C. There V <= t M, where t is the largest
    ratio of variance to mean, so sqrt(V) is at most v with v^2 / t + z v = C, and sqrt(V) >= V / v. So the sum of m + z
    s^2 / v is at most C, too. With a correlation r, sqrt((1 - r) V + r S^2) >= (1 - r) sqrt(V) + r S, for the root is
    concave.
    """
    z, r = max(0.0, room.deviations), room.correlation
    variance = demand.sd**2
    with np.errstate(divide="ignore", invalid="ignore"):
        steepest = float(np.nanmax(np.where(demand.mean > 0, variance / demand.mean, 0.0), initial=0.0))
    if steepest <= 0 or z == 0:
        return demand.mean + z * r * demand.sd
    largest = (-z + math.sqrt(z * z + 4 * room.cores / steepest)) * steepest / 2
    return demand.mean + z * (r * demand.sd + (1 - r) * variance / largest)


def find_bound(demand: Demand, room: Room) -> Bound:
    """Return the lower bounds of a packing.

    Each is the larger of two: the optimum of the linear relaxation, in which a server may be cut among hosts (of equal
    hosts it is the sum of a demand over a host's room), and L2 of S. Martello and P. Toth (Knapsack Problems, 1990,
    section 8.3.2), which counts those that cannot share a host.
    """
    cpu = linear_cpu(demand, room)
    return Bound(
        max(_relaxed(cpu, demand.count, room.cores), _martello_toth(cpu, demand.count, room.cores)),
        max(
            _relaxed(demand.memory, demand.count, room.memory_bytes),
            _martello_toth(demand.memory, demand.count, room.memory_bytes),
        ),
    )


def find_relaxed(demand: Demand, room: Room) -> float:
    """Return the optimum of the linear relaxation alone, in hosts and parts of one."""
    cpu = _relaxed(linear_cpu(demand, room), demand.count, room.cores)
    return max(cpu, _relaxed(demand.memory, demand.count, room.memory_bytes))


def _relaxed(size: Column, count: Column, capacity: float) -> float:
    return float((size * count).sum()) / capacity


def _martello_toth(size: Column, count: Column, capacity: float) -> float:
    """Return L2: for thresholds up to half a host, those above it that fill more than half, and as many hosts more
    as the rest of those above the threshold needs beyond the space that the first leave."""
    order = np.argsort(-size)
    sizes, counts = size[order], count[order].astype(float)
    half = capacity / 2
    large = int(np.searchsorted(-sizes, -half * (1 + _SLACK)))  # the first that is no larger than half
    if large == 0:
        return 0.0
    numbers = np.concatenate([[0.0], np.cumsum(counts)])
    volumes = np.concatenate([[0.0], np.cumsum(sizes * counts)])
    best = float(numbers[large])
    thresholds = np.unique(sizes[large:])
    for threshold in thresholds[:: max(1, len(thresholds) // _THRESHOLDS)]:
        alone = int(
            np.searchsorted(-sizes, -(capacity - threshold) * (1 + _SLACK))
        )  # beside nothing above the threshold
        end = int(np.searchsorted(-sizes, -threshold * (1 - _SLACK), side="right"))
        space = (numbers[large] - numbers[alone]) * capacity - (volumes[large] - volumes[alone])
        beyond = max(0.0, math.ceil((volumes[end] - volumes[large] - space) / capacity - _SLACK))
        best = max(best, float(numbers[large]) + beyond)
    return best
