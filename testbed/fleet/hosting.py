"""From measured footprints to what hosting adds to a server, at their estimates and drawn from their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from msgspec import Struct

from runtime.errors import UsageError
from testbed.fleet.demands import Hosting
from testbed.fleet.servers import Column
from testbed.footprints import Footprint
from testbed.statistics import LEVEL, Estimate

# What a server's own need is taken from, in this order: what runs with the least around it.
BASES = ("process", "container")
_DEVIATIONS = NormalDist().inv_cdf((1 + LEVEL) / 2)


class Figures(Struct, frozen=True):
    """A footprint's figures as numbers, or as columns of draws."""

    memory_first: Column
    memory_further: Column
    cpu_per_request: Column
    cpu_idle: Column


def find_base(footprints: Sequence[Footprint]) -> Footprint:
    """Return the footprint that a server's own need is taken from; hosting is what others take beyond it."""
    by_name = {one.platform: one for one in footprints}
    return next((by_name[name] for name in BASES if name in by_name), footprints[0])


def take_estimates(footprint: Footprint) -> Figures:
    """Return the estimates themselves."""
    return Figures(*(0.0 if one is None else one.value for one in _list_estimates(footprint)))


def draw_figures(footprint: Footprint, count: int, chance: np.random.Generator) -> Figures:
    """Draw so many sets of figures from their intervals."""
    return Figures(*(draw(one, count, chance) for one in _list_estimates(footprint)))


def _list_estimates(footprint: Footprint) -> tuple[Estimate | None, ...]:
    return footprint.memory_first, footprint.memory_further, footprint.cpu_per_request, footprint.cpu_idle


def draw(estimate: Estimate | None, count: int, chance: np.random.Generator) -> Column:
    """Draw from a normal distribution on either side of the estimate, each as wide as its side of the interval says; no
    draw is below 0. What has a range of few trials is drawn evenly from it; what has neither stays as it is."""
    if estimate is None:
        return np.zeros(count)
    if not estimate.is_interval:
        return chance.uniform(estimate.low, estimate.high, count)
    side = chance.standard_normal(count) / _DEVIATIONS
    width = np.where(side < 0, estimate.value - estimate.low, estimate.high - estimate.value)
    return np.maximum(estimate.value + side * width, 0.0)


def compute_hosting(figures: Figures, base: Figures, index: int | None = None) -> Hosting:
    """Return what a platform adds to what a server needs on the base; of draws that of one ``index``.

    Raises UsageError where a request costs nothing on the base: then there is no factor.
    """

    def pick(column: Column) -> float:
        return float(column if index is None else column[index])

    per_request = pick(base.cpu_per_request)
    if per_request <= 0:
        raise UsageError(
            "a request takes no CPU time on the platform that others are compared with", "measure it again"
        )
    return Hosting(
        cpu_factor=pick(figures.cpu_per_request) / per_request,
        cpu_idle=max(0.0, pick(figures.cpu_idle) - pick(base.cpu_idle)),
        memory_each=pick(figures.memory_further) - pick(base.memory_further),
        memory_once=max(0.0, pick(figures.memory_first) - pick(figures.memory_further)),
    )
