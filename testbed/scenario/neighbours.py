"""What a scenario says of neighbours that turn bad beside it: which kinds, and under which load it is watched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct

from testbed.scenario.loads import MOST_REQUESTS
from testbed.scenario.sections import Section, read_rate
from testbed.yamltree.problems import quote
from testbed.yamltree.values import Value

# What testbed/neighbours/program can do, in the order of reports, and what that is.
KINDS: Mapping[str, str] = MappingProxyType(
    {
        "spin": "computes on every processor",
        "fork": "starts processes that start processes (a fork bomb)",
        "memory": "touches ever more memory, again and again",
        "disk": "writes a file in its root, and waits for it to be there",
        "network": "sends small datagrams to the bridge that all share",
        "cache": "writes all over 64 MiB, in random order",
        "rename": "renames a file between two directories",
        "mmap": "maps and unmaps memory in threads that share it",
    }
)
# Those of a quick run.
QUICK_KINDS = ("spin", "fork", "memory")


class Neighbours(Struct, frozen=True):
    """The ``kinds`` that stand beside the application one after the other, the load that it is under meanwhile
    (``rate_per_s``), and for how long that is counted."""

    kinds: tuple[str, ...] = tuple(KINDS)
    rate_per_s: float = 25.0
    window_s: float = 20.0


def read_neighbours(section: Section, rates_per_s: Sequence[float], duration_s: float) -> Neighbours:
    """Return what the section says: unless it says otherwise, all kinds beside the middle one of the load's rates, for
    as long as those are offered; what is wrong is noted."""
    kinds, rate, window = (section.get(key) for key in ("kinds", "rate_per_s", "window_s"))
    known = sorted(rates_per_s) or [0.0]  # none where something is wrong with them
    read = Neighbours(
        kinds=tuple(KINDS) if kinds is None else _read_kinds(kinds),
        rate_per_s=known[(len(known) - 1) // 2] if rate is None else read_rate(rate),
        window_s=section.seconds("window_s", duration_s, above=0),
    )
    own = rate or window
    if own is not None and read.rate_per_s * read.window_s > MOST_REQUESTS:
        own.report("makes too many requests", f"at most {MOST_REQUESTS}: rate_per_s times window_s")
    return read


def _read_kinds(value: Value) -> tuple[str, ...]:
    items = value.items()
    names = [item.text("a kind of neighbour") for item in items]
    for item, name in zip(items, names, strict=True):
        if name not in KINDS:
            item.report(f"is {quote(name)}", f"one of {', '.join(KINDS)}")
    if not names or len(set(names)) < len(names):
        value.report("names none, or one twice", f"some of {', '.join(KINDS)}, each once")
    return tuple(names)
