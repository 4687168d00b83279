"""How many copies of a measured application fit on one host, on each platform, and what binds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from msgspec import Struct

from runtime.errors import UsageError
from testbed.fleet.demands import Fit, Host, Hosting, Sums, check_fit, count_fitting, make_room
from testbed.fleet.draws import Interval, make_interval
from testbed.fleet.hosting import Figures, draw_figures, take_estimates
from testbed.fleet.servers import Column
from testbed.fleet.simulate import DRAWS
from testbed.footprints import Footprint

# A bridge of Linux has so many ports; one of them is the load's.
PORTS_OF_BRIDGE = 1023
_NEGLIGIBLE = 1e-9


class Plan(Struct, frozen=True):
    """What a host is asked to hold: copies at ``rate_per_s`` requests each on average, whose load varies over time by
    ``cpu_cv`` of its mean; all of them must be back within ``restart_s`` after the host comes up."""

    host: Host
    fit: Fit
    rate_per_s: float
    cpu_cv: float
    restart_s: float = 300.0
    bridges: int = 1
    seed: int = 1


class Check(Struct, frozen=True):
    """The model beside a ramp on the run's own host: copies that it says, and those that each ramp ended with.

    ``verdict`` is "agrees" where the ramp ended at no more than it says and at no less than half of it, "capped" where
    the ramp stopped by its own limit before, "too many" where the ramp broke well before: something else binds there.
    """

    model: int
    measured: tuple[int, ...]
    verdict: str


class Copies(Struct, frozen=True):
    """Copies that fit on a platform: by each resource, and ``copies``, the fewest of these, with its interval."""

    platform: str
    label: str
    emulated: bool
    by: Mapping[str, int]
    copies: Interval
    utilisation: float
    memory: float
    without_interval: tuple[str, ...]
    check: Check | None = None

    @property
    def binds(self) -> str:
        """What there is too little of for one copy more."""
        return min(self.by, key=lambda name: self.by[name])


def plan_host(plan: Plan, footprint: Footprint, own: Host | None = None) -> Copies:
    """Return how many copies fit on a host; ``own`` is the run's host, on which the model is checked.

    Raises UsageError for what cannot be planned, and where not one copy fits, with what is short.
    """
    _check(plan)
    central = _count(plan, plan.host, footprint, take_estimates(footprint), 1)
    by = {name: int(column[0]) for name, column in central.items()}
    copies = min(by.values())
    if copies < 1:
        short = min(by, key=lambda name: by[name])
        raise UsageError(
            f"no copy fits on a host of {plan.host.cores:g} processors and {plan.host.memory_bytes / 2**30:.4g} GiB"
            f" as {footprint.label}: {short} is short",
            "a larger --host, less --headroom, or a lower --rate",
        )
    drawn = draw_figures(footprint, DRAWS, np.random.default_rng(plan.seed))
    counts = np.sort(np.minimum.reduce([*_count(plan, plan.host, footprint, drawn, DRAWS).values()]))
    beyond = math.floor(DRAWS * 0.025)
    figures = take_estimates(footprint)
    each = plan.rate_per_s * figures.cpu_per_request + figures.cpu_idle
    memory = figures.memory_first + (copies - 1) * figures.memory_further
    return Copies(
        footprint.platform,
        footprint.label,
        footprint.emulated,
        by,
        make_interval(copies, (int(counts[beyond]), int(counts[-1 - beyond])), not footprint.without_interval),
        copies * each / plan.host.cores,
        memory / plan.host.memory_bytes,
        footprint.without_interval,
        _compare(plan, footprint, own) if own else None,
    )


def _check(plan: Plan) -> None:
    check_fit(plan.fit)
    if not (plan.host.cores > 0 and plan.host.memory_bytes > 0):
        raise UsageError(
            f"a host of {plan.host.cores:g} processors and {plan.host.memory_bytes:g} bytes", "more than 0"
        )
    if not (plan.rate_per_s > 0 and plan.restart_s > 0 and plan.bridges > 0 and plan.cpu_cv >= 0):
        raise UsageError(
            f"{plan.rate_per_s:g} requests/s, back within {plan.restart_s:g} s, {plan.bridges} bridges",
            "each must be more than 0",
        )


def _count(plan: Plan, host: Host, footprint: Footprint, figures: Figures, draws: int) -> dict[str, Column]:
    """Return how many copies each resource has room for, in columns of draws."""
    room = make_room(host, plan.fit, Hosting())
    none = np.full(draws, _NEGLIGIBLE)
    mean = plan.rate_per_s * figures.cpu_per_request + figures.cpu_idle + none
    once = np.maximum(figures.memory_first - figures.memory_further, 0.0) + none
    zero = np.zeros(draws)
    by = {
        "memory": count_fitting(
            room, Sums(zero, zero, zero, once), none, zero, np.maximum(figures.memory_further + none, 1.0)
        ),
        "CPU": count_fitting(room, Sums.empty(draws), mean, mean * plan.cpu_cv, none),
        "ports": np.full(draws, plan.bridges * (PORTS_OF_BRIDGE - 1) // footprint.instances),
    }
    if footprint.start_s is not None and footprint.start_s.value > 0:
        # A start keeps a processor busy while it lasts: so many at a time, one after the other.
        starts = math.floor(plan.restart_s / footprint.start_s.value) * max(1, math.floor(host.cores))
        by["starts"] = np.full(draws, starts)
    return by


def _compare(plan: Plan, footprint: Footprint, own: Host) -> Check | None:
    """Set the model beside the ramps of the run's own host, whose whole memory and CPU they could take."""
    if not footprint.held:
        return None
    loaded = Plan(own, Fit(0.0, 0.01), plan.rate_per_s, 0.0, restart_s=1e9, bridges=plan.bridges)
    model = int(min(int(one[0]) for one in _count(loaded, own, footprint, take_estimates(footprint), 1).values()))
    most = max(footprint.held)
    if footprint.capped and most <= model:
        return Check(model, footprint.held, "capped")
    return Check(
        model, footprint.held, "agrees" if model / 2 <= most <= model else "too many" if most < model else "too few"
    )
