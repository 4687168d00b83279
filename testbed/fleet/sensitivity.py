"""What a result depends on: each assumption varied by itself, as ends (a tornado) and as curves.

It is computed of the fleet's first servers: what is compared is how the ratio between platforms moves, and a part shows
that as well as the whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import UsageError
from testbed.fleet.demands import Hosting, group, list_demands, make_room
from testbed.fleet.hosting import compute_hosting, find_base, take_estimates
from testbed.fleet.packing import Heuristic, count_hosts
from testbed.fleet.parallel import spread
from testbed.fleet.servers import scale, take_first
from testbed.fleet.simulate import Question
from testbed.footprints import Footprint

SAMPLE = 4000
_SIZES = 400


class Change(Struct, frozen=True):
    """One assumption at another value: factors to the platform's overhead of memory and of CPU, to the load, the memory
    of servers and the size of hosts; a headroom and a correlation, None where they stay."""

    memory_overhead: float = 1.0
    cpu_overhead: float = 1.0
    load: float = 1.0
    memory: float = 1.0
    host: float = 1.0
    headroom: float | None = None
    correlation: float | None = None


class Point(Struct, frozen=True):
    """A result at a value of an assumption: hosts on the platform and on the base for the part of the fleet, None where
    some server fits on no host then."""

    value: float
    hosts: int | None
    base_hosts: int | None

    @property
    def ratio(self) -> float | None:
        return self.hosts / self.base_hosts if self.hosts and self.base_hosts else None


class Swing(Struct, frozen=True):
    """An assumption with the results at the two ends of what it may be."""

    name: str
    low: Point
    high: Point

    @property
    def width(self) -> float:
        """How far the ratio moves between the ends."""
        ratios = [one.ratio for one in (self.low, self.high) if one.ratio is not None]
        return max(ratios) - min(ratios) if len(ratios) == 2 else 0.0


class Curve(Struct, frozen=True):
    """An assumption with the results along it."""

    name: str
    points: tuple[Point, ...]


class Sensitivity(Struct, frozen=True):
    """How one platform beside the base depends on each assumption; ``servers`` is the part that it was computed of."""

    platform: str
    label: str
    emulated: bool
    base: str
    servers: int
    central: Point
    swings: tuple[Swing, ...]
    curves: tuple[Curve, ...]


# Each assumption: its name, the field of a change, its ends, and the points of its curve (none: no curve).
_VARIED: tuple[tuple[str, str, tuple[float, float], tuple[float, ...]], ...] = (
    ("memory that hosting takes, times", "memory_overhead", (0.5, 2.0), (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)),
    ("CPU that hosting takes, times", "cpu_overhead", (0.5, 2.0), (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)),
    ("headroom", "headroom", (0.0, 0.3), (0.0, 0.1, 0.2, 0.3, 0.4)),
    ("load of servers, times", "load", (0.5, 2.0), (0.25, 0.5, 1.0, 2.0, 4.0)),
    ("memory of servers, times", "memory", (0.5, 2.0), (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)),
    ("size of a host, times", "host", (0.5, 2.0), (0.25, 0.5, 1.0, 2.0, 4.0)),
    ("correlation of loads", "correlation", (0.0, 0.3), ()),
)


class _Task(Struct, frozen=True):
    question: Question
    footprint: Footprint
    base: Footprint
    change: Change
    value: float
    heuristic: Heuristic


def find_sensitivity(question: Question, footprint: Footprint, heuristic: Heuristic, workers: int = 1) -> Sensitivity:
    """Return how many times as many hosts a platform needs as the base, with each assumption varied."""
    base = find_base(question.footprints)
    part = replace(question, servers=take_first(question.servers, SAMPLE))
    values = [(field, value) for _, field, ends, along in _VARIED for value in sorted({*ends, *along})]
    tasks = [_Task(part, footprint, base, Change(**{field: value}), value, heuristic) for field, value in values]
    tasks.append(_Task(part, footprint, base, Change(), 1.0, heuristic))
    points = spread(_find_point, tasks, workers)
    at = dict(zip(values, points[:-1], strict=True))
    return Sensitivity(
        footprint.platform,
        footprint.label,
        footprint.emulated,
        base.label,
        part.servers.count,
        points[-1],
        tuple(
            sorted(
                (Swing(name, at[field, low], at[field, high]) for name, field, (low, high), _ in _VARIED),
                key=lambda one: -one.width,
            )
        ),
        tuple(Curve(name, tuple(at[field, one] for one in along)) for name, field, _, along in _VARIED if along),
    )


def _find_point(task: _Task) -> Point:
    """Return the hosts on the platform and on the base with one assumption changed."""
    change, question, fit = task.change, task.question, task.question.fit
    if change.headroom is not None:
        fit = replace(fit, headroom=change.headroom)
    if change.correlation is not None:
        fit = replace(fit, correlation=change.correlation)
    host = replace(
        question.host, cores=question.host.cores * change.host, memory_bytes=question.host.memory_bytes * change.host
    )
    bare = list_demands(scale(question.servers, change.load, change.memory))
    similar = group(bare, _SIZES)
    counts: list[int | None] = []
    for footprint in (task.footprint, task.base):
        hosting = compute_hosting(take_estimates(footprint), take_estimates(task.base))
        hosting = _change_hosting(hosting, change) if footprint.platform != task.base.platform else hosting
        try:
            counts.append(count_hosts(bare, similar, hosting, make_room(host, fit, hosting), task.heuristic))
        except UsageError:
            counts.append(None)
    return Point(task.value, counts[0], counts[1])


def _change_hosting(hosting: Hosting, change: Change) -> Hosting:
    return Hosting(
        cpu_factor=max(0.0, 1 + (hosting.cpu_factor - 1) * change.cpu_overhead),
        cpu_idle=hosting.cpu_idle * change.cpu_overhead,
        memory_each=hosting.memory_each * change.memory_overhead,
        memory_once=hosting.memory_once * change.memory_overhead,
    )


def choose_compared(footprints: Sequence[Footprint]) -> Footprint | None:
    """Return the platform whose sensitivity is of most use: the first beside the base, one that is not emulated before
    one that is."""
    base = find_base(footprints)
    others = [one for one in footprints if one is not base]
    return next((one for one in others if not one.emulated), others[0] if others else None)
