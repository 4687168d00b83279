"""Where to repeat: how much each level of an experiment varies, and how often to repeat it for what it costs.

T. Kalibera and R. Jones, Rigorous Benchmarking in Reasonable Time, ISMM 2013: an experiment has levels, such as build,
boot, instance and request, each of which is repeated within the one above it. What varies on a level averages out only
by repeating that level or one above it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, variance
from typing import Any

from msgspec import Struct

# Beyond so many repetitions the formula means: as many as there is time for.
MOST = 10_000

# Numbers, or a list of such a thing for each repetition of a level: measurements, by level from the highest down.
Nested = Sequence[Any]


class VarianceComponents(Struct, frozen=True):
    """How much each level adds to the variance of a measurement, by level from the highest down, and the mean of all.

    A component is an unbiased estimate and may be negative, where a level adds nothing that can be seen.
    """

    components: tuple[float, ...]
    mean: float
    counts: tuple[int, ...]


class LevelCost(Struct, frozen=True):
    """What one more repetition of a level costs, in seconds, without what is measured within it."""

    level: str
    cost_s: float


class Repetition(Struct, frozen=True):
    """How often to repeat a level within the one above it; None for the highest level: as often as precision wants."""

    level: str
    count: int | None
    component: float
    cost_s: float


def find_components(measured: Nested) -> VarianceComponents:
    """Return the variance components of a balanced nested experiment; every level has at least two repetitions.

    ``measured[i][j]...[k]`` is a number. S of a level is the variance of means within the level above, averaged; a
    component is S less the part of it that comes from the level below: T_i = S_i - S_(i-1) / r_(i-1) (section 9.2, with
    the corrections of the updated version). Raises ValueError for an experiment that is not balanced.
    """
    counts = _shape(measured)
    spreads = []
    for depth in range(len(counts)):
        groups = _groups(measured, depth)
        spreads.append(fmean(variance([_mean(one) for one in group]) for group in groups))
    below = [spread / count for spread, count in zip(spreads[1:], counts[1:], strict=True)]
    components = tuple(spread - part for spread, part in zip(spreads, [*below, 0.0], strict=True))
    return VarianceComponents(components, _mean(measured), counts)


def plan_repetitions(components: Sequence[float], costs: Sequence[LevelCost]) -> tuple[Repetition, ...]:
    """Return how often to repeat each level, from the highest down, for the least variance in a given time.

    r_i = ceil(sqrt(c_(i+1) / c_i * T_i / T_(i+1))): what varies much and costs little is repeated. A level that adds
    nothing is done once; where the level above adds nothing, this one is repeated instead of it, and the count is
    ``MOST``. Raises ValueError where components and costs are not of the same levels.
    """
    if len(components) != len(costs):
        raise ValueError(f"{len(components)} components and {len(costs)} costs are not of the same levels")
    repetitions = [Repetition(costs[0].level, None, components[0], costs[0].cost_s)]
    for (above, own), (cost_above, cost) in zip(pairwise(components), pairwise(costs), strict=True):
        repetitions.append(Repetition(cost.level, _count(own, above, cost.cost_s, cost_above.cost_s), own, cost.cost_s))
    return tuple(repetitions)


def _count(own: float, above: float, cost_s: float, cost_above_s: float) -> int:
    if own <= 0:
        return 1
    if above <= 0 or cost_s <= 0:
        return MOST
    return min(MOST, max(1, math.ceil(math.sqrt(cost_above_s / cost_s * own / above))))


def _shape(measured: Nested) -> tuple[int, ...]:
    if len(measured) < 2:
        raise ValueError("each level needs at least two repetitions")
    if not isinstance(measured[0], Sequence):
        return (len(measured),)
    shapes = {_shape(one) for one in measured}
    if len(shapes) > 1:
        raise ValueError("the experiment is not balanced: its repetitions have different numbers of measurements")
    return (len(measured), *shapes.pop())


def _groups(measured: Nested, depth: int) -> list[Nested]:
    """Return all lists of repetitions at a depth."""
    return [measured] if not depth else [group for one in measured for group in _groups(one, depth - 1)]


def _mean(measured: Any) -> float:
    return fmean(_mean(one) for one in measured) if isinstance(measured, Sequence) else float(measured)
