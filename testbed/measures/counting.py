"""What was counted in a window of a trial, as figures of the whole application: exits, faults, switches, interrupts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from testbed.counts import (
    TOTAL,
    Counts,
    HostCounts,
    add_exits,
    count_switches,
    read_counts,
    read_host_counts,
)
from testbed.platforms.protocol import Counting, Instance, Metered, Platform
from testbed.results import Metric

_NOTHING = Counts(0, 0, {}, {})


class Tally(Struct, frozen=True):
    """The counts at a moment: of the host, and of instances by name; one that is not there yet has counted nothing.

    ``took_ns`` is what it took to read them.
    """

    host: HostCounts
    instances: Mapping[str, Counts] = field(default_factory=dict)
    took_ns: int = 0


def read(platform: Platform, instances: Sequence[Instance] = ()) -> Tally | None:
    """Return the counts now; None when they cannot be read, because one of the instances has ended by itself, or is no
    process of this system."""
    if isinstance(platform, Metered):
        return None
    began_ns = time.monotonic_ns()
    try:
        counted = {
            instance.name: read_counts(
                platform.cgroup(instance), platform.exits(instance) if isinstance(platform, Counting) else None
            )
            for instance in instances
        }
        host = read_host_counts()
    except OSError:
        return None
    return Tally(host, counted, time.monotonic_ns() - began_ns)


def make_metrics(before: Tally | None, after: Tally | None, requests: int | None = None) -> tuple[Metric, ...]:
    """Return the figures of a window; what was not counted is absent, and never 0.

    With ``requests`` each is for one of those, and its name ends so; none are for no requests.
    """
    if before is None or after is None or requests == 0:
        return ()
    pairs = [(before.instances.get(name, _NOTHING), counts) for name, counts in after.instances.items()]
    figures: dict[str, int] = {}
    exits = [(one.exits or {}, other.exits) for one, other in pairs]
    if exits and all(now for _, now in exits):
        sums = add_exits({reason: now[reason] - then.get(reason, 0) for reason in now} for then, now in exits if now)
        figures |= {reason if reason == TOTAL else f"{TOTAL}_{reason}": count for reason, count in sums.items()}
    figures["page_faults"] = sum(now.page_faults - then.page_faults for then, now in pairs)
    figures["major_faults"] = sum(now.major_faults - then.major_faults for then, now in pairs)
    if all(now.switches is not None for _, now in pairs):
        switches = [(then.switches or {}, now.switches or {}) for then, now in pairs]
        figures["context_switches"] = sum(count_switches(*both) for both in switches)
    figures["host_context_switches"] = after.host.switches - before.host.switches
    figures["host_interrupts"] = after.host.interrupts - before.host.interrupts
    took = Metric("counting", (before.took_ns + after.took_ns) / 1e9, "s")
    end, parts = ("", 1) if requests is None else ("_per_request", requests)
    return (*(Metric(f"{name}{end}", count / parts, "1") for name, count in figures.items()), took)
