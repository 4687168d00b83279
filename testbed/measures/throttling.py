"""What the quota of processor time held back, as figures of a trial: of all instances, and of each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from runtime.cgroups import Cgroup, Throttling, sum_throttling
from testbed.platforms.protocol import Instance
from testbed.results import THROTTLED, THROTTLED_PERIODS, Metric


def name_part(instance: Instance) -> str:
    """Return which part of the application an instance is: its service, or all that it runs."""
    return "+".join(instance.specs)


def read(cgroups: Mapping[str, Cgroup]) -> dict[str, Throttling]:
    """Return what has been held back of each instance since it was made; nothing of one that has ended by itself."""
    held_back: dict[str, Throttling] = {}
    for part, cgroup in cgroups.items():
        with suppress(OSError):
            held_back[part] = cgroup.throttling()
    return held_back


def make_metrics(held_back: Mapping[str, Throttling]) -> tuple[Metric, ...]:
    """Return the figures of instances by their parts of the application; none of an instance without a quota.

    ``throttled_periods`` is the fraction (0 to 1) of the kernel's periods of 100 ms, of those in which an instance
    wanted to run, in which it was stopped; ``throttled`` is for how long, added up over processors.
    """
    limited = {part: one for part, one in held_back.items() if one.periods > 0}
    if not limited:
        return ()
    named = [("", sum_throttling(limited.values())), *((f"{part}.", one) for part, one in limited.items())]
    return tuple(
        metric
        for prefix, one in named
        for metric in (
            Metric(f"{prefix}{THROTTLED_PERIODS}", one.fraction, "1"),
            Metric(f"{prefix}{THROTTLED}", one.throttled_ns / 1e9, "s"),
        )
    )
