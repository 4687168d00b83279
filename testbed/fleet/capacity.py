"""How many copies of a measured application fit on one host, on each platform, and what binds."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from msgspec import Struct

from runtime.errors import UsageError
from testbed.fleet.demands import Fit, Host, Hosting, Sums, check_fit, count_fitting, make_room
from testbed.fleet.draws import Interval, find_ends, make_interval
from testbed.fleet.hosting import Figures, draw_figures, take_estimates
from testbed.fleet.servers import Column
from testbed.fleet.simulate import DRAWS
from testbed.footprints import Footprint

# A bridge of Linux has so many ports; one of them is the load's.
PORTS_OF_BRIDGE = 1023
_NEGLIGIBLE = 1e-9
# No rate, time or number of bridges is larger.
_MOST = 1e9


class CopiesQuestion(Struct, frozen=True):
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


def find_copies(question: CopiesQuestion, footprint: Footprint, own: Host | None = None) -> Copies:
    """Return how many copies fit on a host; ``own`` is the run's host, on which the model is checked.

    Raises UsageError for what cannot be planned, and where not one copy fits, with what is short.
    """
    _check(question)
    central = _count(question, question.host, footprint, take_estimates(footprint), 1)
    by = {name: int(column[0]) for name, column in central.items()}
    copies = min(by.values())
    if copies < 1:
        short, host = min(by, key=lambda name: by[name]), question.host
        raise UsageError(
            f"no copy fits on a host of {host.cores:g} processors and {host.memory_bytes / 2**30:.4g} GiB"
            f" as {footprint.label}: {short} is short",
            "a larger --host, less --headroom, or a lower --rate",
        )
    drawn = draw_figures(footprint, DRAWS, np.random.default_rng(question.seed))
    counts = np.minimum.reduce([*_count(question, question.host, footprint, drawn, DRAWS).values()])
    ends = [int(counts[index]) for index in find_ends(counts)]
    figures = take_estimates(footprint)
    each = question.rate_per_s * figures.cpu_per_request + figures.cpu_idle
    memory = figures.memory_first + (copies - 1) * figures.memory_further
    return Copies(
        footprint.platform,
        footprint.label,
        footprint.emulated,
        by,
        make_interval(copies, ends, not footprint.without_interval),
        copies * each / question.host.cores,
        memory / question.host.memory_bytes,
        footprint.without_interval,
        _compare(question, footprint, own) if own else None,
    )


def _check(question: CopiesQuestion) -> None:
    check_fit(question.fit)
    if not (question.host.cores > 0 and question.host.memory_bytes > 0):
        raise UsageError(
            f"a host of {question.host.cores:g} processors and {question.host.memory_bytes:g} bytes", "more than 0"
        )
    given = question.rate_per_s, question.restart_s, question.bridges
    if not (all(0 < one <= _MOST for one in given) and 0 <= question.cpu_cv <= _MOST):
        raise UsageError(
            f"{question.rate_per_s:g} requests/s, back within {question.restart_s:g} s, {question.bridges} bridges",
            "each must be more than 0, and a number of this world",
        )


def _count(
    question: CopiesQuestion, host: Host, footprint: Footprint, figures: Figures, draws: int
) -> dict[str, Column]:
    """Return how many copies each resource has room for, in columns of draws."""
    room = make_room(host, question.fit, Hosting())
    none = np.full(draws, _NEGLIGIBLE)
    mean = question.rate_per_s * figures.cpu_per_request + figures.cpu_idle + none
    once = np.maximum(figures.memory_first - figures.memory_further, 0.0) + none
    zero = np.zeros(draws)
    by = {
        "memory": count_fitting(
            room, Sums(zero, zero, zero, once), none, zero, np.maximum(figures.memory_further + none, 1.0)
        ),
        "CPU": count_fitting(room, Sums.empty(draws), mean, mean * question.cpu_cv, none),
        "ports": np.full(draws, question.bridges * (PORTS_OF_BRIDGE - 1) // footprint.instances),
    }
    if footprint.start_s is not None and footprint.start_s.value > 0:
        # A start keeps a processor busy while it lasts: so many at a time, one after the other.
        starts = math.floor(question.restart_s / footprint.start_s.value) * max(1, math.floor(host.cores))
        by["starts"] = np.full(draws, starts)
    return by


def _compare(question: CopiesQuestion, footprint: Footprint, own: Host) -> Check | None:
    """Set the model beside the ramps of the run's own host, whose whole memory and CPU they could take."""
    if not footprint.held:
        return None
    loaded = CopiesQuestion(own, Fit(0.0, 0.01), question.rate_per_s, 0.0, restart_s=1e9, bridges=question.bridges)
    model = int(min(int(one[0]) for one in _count(loaded, own, footprint, take_estimates(footprint), 1).values()))
    most = max(footprint.held)
    if footprint.capped and most <= model:
        return Check(model, footprint.held, "capped")
    return Check(
        model, footprint.held, "agrees" if model / 2 <= most <= model else "too many" if most < model else "too few"
    )
