"""Puts the program's records together: one row for all that was read of an instance, or of the host, at a tick."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from msgspec import Struct

from runtime.cgroups import Throttling
from testbed.sampler.plan import HOST, Group

_HEADER = struct.Struct("=IIQ")
_ABSENT = -(1 << 63)
_TICK = (1 << 32) - 1
# What the kernel counts since a cgroup, or the host, was made: here it counts from the first row that has it.
COUNTERS = (
    "cpu_ns", "nr_periods", "nr_throttled", "throttled_ns", "read_bytes", "written_bytes", "received_bytes",
    "sent_bytes", "cpu_some_us", "cpu_full_us", "memory_some_us", "memory_full_us", "io_some_us", "io_full_us",
)  # fmt: skip
# The columns of a file of samples: those that there were before the rest keep their places.
COLUMNS = (
    "t_s", "name", "cpu_ns", "cgroup_bytes", "pss_bytes", "busy", "available_bytes", "nr_periods", "nr_throttled",
    "throttled_ns", "steal", "read_bytes", "written_bytes", "received_bytes", "sent_bytes", "cpu_some_us",
    "memory_some_us", "memory_full_us", "io_some_us", "io_full_us",
)  # fmt: skip
_TICKS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


class Row(Struct, frozen=True):
    """What was read of ``name`` at one tick, by column; what was not read then is absent. ``t_s`` counts from the
    sampler's beginning until the first of the files was read."""

    t_s: float
    name: str
    values: Mapping[str, float]


class Usage(Struct, frozen=True):
    """A cgroup over a window: CPU time used in it, what its quota held back, memory averaged over its samples.

    ``samples`` is how often its CPU time was read.
    """

    cpu_s: float
    cgroup_bytes: float
    pss_bytes: float
    samples: int
    throttling: Throttling = Throttling()


class Records(Struct, frozen=True):
    """What the records hold: rows in the order of time, and how late each tick came, in nanoseconds."""

    rows: tuple[Row, ...]
    late_ns: tuple[int, ...]


def read_records(data: bytes, groups: Sequence[Group]) -> Records:
    """Return the rows of what the program wrote for these groups; a record that is cut short ends them."""
    sources = [source for group in groups for source in group.sources]
    bodies = [struct.Struct(f"={max(len(source.keys), 1)}q") for source in sources]
    tick_body = struct.Struct("=q")
    late_ns: list[int] = []
    at: dict[tuple[int, str], tuple[int, dict[str, float]]] = {}
    began_ns, offset = 0, 0
    while offset + _HEADER.size + tick_body.size <= len(data):
        index, tick, t_ns = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        if index == _TICK:
            late_ns += tick_body.unpack_from(data, offset)
            began_ns = began_ns or t_ns
            offset += tick_body.size
            continue
        if offset + bodies[index].size > len(data):
            break
        for column, value in zip(sources[index].columns, bodies[index].unpack_from(data, offset), strict=True):
            if value != _ABSENT:
                values = at.setdefault((tick, column.owner), (t_ns, {}))[1]
                values[column.name] = values.get(column.name, 0) + value * column.factor
        offset += bodies[index].size
    rows = [Row((t_ns - began_ns) / 1e9, owner, values) for (_, owner), (t_ns, values) in at.items()]
    return Records(tuple(_count_from_first(sorted(rows, key=lambda row: row.t_s))), tuple(late_ns))


def _count_from_first(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with counters that begin at 0, and the host's ticks as fractions of the time between two rows."""
    first: dict[tuple[str, str], float] = {}
    before: dict[str, float] = {}
    counted = []
    for row in rows:
        values = dict(row.values)
        for name in COUNTERS:
            if name in values:
                values[name] -= first.setdefault((row.name, name), values[name])
        if row.name == HOST:
            ticks = {name: values.pop(f"{name}_ticks") for name in _TICKS if f"{name}_ticks" in values}
            if len(ticks) == len(_TICKS):
                values |= _split(before, ticks) if before else {}
                before = ticks
        if values:
            counted.append(Row(row.t_s, row.name, values))
    return counted


def _split(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return the fractions (0 to 1) of all processors' time that were busy and stolen; none without a tick between.

    The kernel warns that iowait and steal can run backwards.
    """
    passed = {name: after[name] - before[name] for name in after}
    whole = sum(passed.values())
    if whole <= 0:
        return {}
    busy = whole - passed["idle"] - passed["iowait"] - passed["steal"]
    return {"busy": min(max(busy / whole, 0.0), 1.0), "steal": min(max(passed["steal"] / whole, 0.0), 1.0)}


def summarise_usage(rows: Sequence[Row], name: str) -> Usage:
    """Return what ``name`` used from its first sample to its last. With fewer than two there is no CPU time to tell."""
    own = [row.values for row in rows if row.name == name]
    samples = sum("cpu_ns" in values for values in own)

    def last(column: str) -> float:
        return next((values[column] for values in reversed(own) if column in values), 0)

    def mean(column: str) -> float:
        read = [values[column] for values in own if column in values]
        return sum(read) / len(read) if read else 0.0

    held_back = Throttling(int(last("nr_periods")), int(last("nr_throttled")), int(last("throttled_ns")))
    return Usage(last("cpu_ns") / 1e9, mean("cgroup_bytes"), mean("pss_bytes"), samples, held_back)


def compute_pressure(rows: Sequence[Row], name: str, resource: str) -> float:
    """Return the fraction (0 to 1) of the time in which some of what ``name`` is waited for a resource: ``cpu``,
    ``memory`` or ``io``. 0 where the kernel does not tell."""
    column = f"{resource}_some_us"
    told = [(row.t_s, row.values[column]) for row in rows if row.name == name and column in row.values]
    if len(told) < 2 or told[-1][0] <= told[0][0]:
        return 0.0
    return min(max((told[-1][1] - told[0][1]) / 1e6 / (told[-1][0] - told[0][0]), 0.0), 1.0)


def tabulate(rows: Sequence[Row]) -> list[tuple[float | str, ...]]:
    """Return the rows of a file of samples, in the order of COLUMNS; a cell is empty where nothing was read."""
    return [(round(row.t_s, 4), row.name, *(_cell(row.values.get(name)) for name in COLUMNS[2:])) for row in rows]


def _cell(value: float | None) -> float | str:
    if value is None:
        return ""
    return round(value, 4) if isinstance(value, float) else value
