"""What a ramp sees at each step, as figures: pure, from readings on either side of its windows of load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from statistics import fmean
from typing import Literal

from msgspec import Struct
from msgspec.structs import astuple

from runtime.cgroups import Throttling, sum_throttling
from testbed.copies import RULERS, first_bytes, further_bytes
from testbed.load.open_loop import LoadResult, merge
from testbed.measures.level import Judged, Verdict, Window, count_slower
from testbed.results import THROTTLED_PERIODS, Metric
from testbed.sample import HostReading, Reading, Shares, compute_shares, compute_utilisation
from testbed.sampler.plan import HOST
from testbed.sampler.records import compute_pressure
from testbed.sampler.sampler import Sampling


class Point(Struct, frozen=True):
    """One step of the ramp, and a row of the samples: so many applications, under load in one window or several.

    ``cgroup_bytes`` and ``pss_bytes`` are None, and ``metered_bytes`` is not, where no cgroup has the applications.
    ``available_bytes`` is the host's MemAvailable; ``host_utilisation`` a fraction (0 to 1) of the windows, and the
    others with ``host_`` the parts of it: of the applications, of the generator, and what was neither.
    ``throttled_periods`` is the fraction of the instances' periods in which their quota of processor time held them
    back.

    ``start_s`` is what the newest application took from its request until it was ready, beside all the others.
    ``requests`` have a latency, of these ``slow`` are above the service level's limit, a fraction that lies between
    ``slow_low`` and ``slow_high`` (testbed.measures.level); ``p50_ms`` and ``p99_ms`` are theirs. ``windows`` is how
    often the step was looked at. ``cpu_pressure`` and the others are the fractions (0 to 1) of the windows in which
    something on the host waited for that (Documentation/accounting/psi.rst).
    """

    applications: int
    cgroup_bytes: int | None
    pss_bytes: int | None
    available_bytes: int
    p99_ms: float
    error_fraction: float
    host_utilisation: float
    host_others: float
    throttled_periods: float = 0.0
    p50_ms: float = 0.0
    start_s: float = 0.0
    requests: int = 0
    slow: int = 0
    slow_low: float = 0.0
    slow_high: float = 1.0
    windows: int = 0
    verdict: Verdict | Literal[""] = ""
    cpu_pressure: float = 0.0
    memory_pressure: float = 0.0
    io_pressure: float = 0.0
    host_application: float = 0.0
    host_generator: float = 0.0
    metered_bytes: int | None = None

    @property
    def held_bytes(self) -> int:
        """What the applications hold: their cgroups' charge, or what has them where no cgroup has."""
        return (self.cgroup_bytes if self.metered_bytes is None else self.metered_bytes) or 0


class Processors(Struct, frozen=True):
    """The host at a moment, with the CPU seconds that all applications and this process have used by then, and what
    quotas have held back of the applications."""

    host: HostReading
    applications_s: float
    own_s: float
    held_back: Throttling


class Look(Struct, frozen=True):
    """One window of load on a step, with the host's state on either side of it and what was sampled in between."""

    load: LoadResult
    window: Window
    before: Processors
    after: Processors
    sampling: Sampling

    @property
    def shares(self) -> Shares:
        """Who used the host's processors."""
        before, after = self.before, self.after
        applications_s = after.applications_s - before.applications_s
        own_s = self.load.generator_cpu_s + after.own_s - before.own_s + self.sampling.account.cpu_s
        return compute_shares(before.host, after.host, applications_s, own_s)


def make_window(result: LoadResult, limit_ms: float) -> Window:
    """Return the counts of a load that its service level is judged by."""
    slow, answered = count_slower(result.latencies, limit_ms), int(result.latencies.get_total_count())
    return Window(answered, slow, result.ok + result.failed, result.failed)


def make_point(
    applications: int,
    readings: Sequence[Reading],
    host: HostReading,
    looks: Sequence[Look],
    judged: Judged,
    start_s: float,
) -> Point:
    """Return a step of so many applications, after its ``looks``: ``readings`` are of all their cgroups."""
    result, shares = merge([look.load for look in looks]), [look.shares for look in looks]
    cpu, memory, io = (
        fmean(compute_pressure(look.sampling.rows, HOST, name) for look in looks) for name in ("cpu", "memory", "io")
    )
    return Point(
        applications=applications,
        cgroup_bytes=sum(reading.cgroup_bytes for reading in readings),
        pss_bytes=sum(reading.pss_bytes for reading in readings),
        available_bytes=host.available_bytes,
        p99_ms=result.p99_s * 1e3,
        error_fraction=result.error_fraction,
        host_utilisation=fmean(compute_utilisation(look.before.host, look.after.host) for look in looks),
        host_others=fmean(one.others for one in shares),
        throttled_periods=sum_throttling(look.after.held_back.since(look.before.held_back) for look in looks).fraction,
        p50_ms=result.p50_s * 1e3,
        start_s=start_s,
        requests=sum(look.window.answered for look in looks),
        slow=sum(look.window.slow for look in looks),
        slow_low=judged.slow_low,
        slow_high=judged.slow_high,
        windows=len(looks),
        verdict=judged.verdict,
        cpu_pressure=cpu,
        memory_pressure=memory,
        io_pressure=io,
        host_application=fmean(one.application for one in shares),
        host_generator=fmean(one.generator for one in shares),
    )


def _to_number(value: float | None) -> float:
    return nan if value is None else float(value)


def list_values(point: Point) -> tuple[float | str, ...]:
    """Return a step as a row of the samples; a cell is empty where nothing counts that."""
    return tuple("" if value is None else value for value in astuple(point))


def is_power_of_two(count: int) -> bool:
    """Return whether a number of applications is one of 1, 2, 4, 8 and so on."""
    return count > 0 and count & (count - 1) == 0


def list_parts(parts: Mapping[int, Mapping[str, int]]) -> list[tuple[int, str, int]]:
    """Return the rows of (applications, part, bytes that all of them hold), in the order of the steps."""
    return [(count, name, held_bytes) for count, held in sorted(parts.items()) for name, held_bytes in held.items()]


def make_part_metrics(parts: Mapping[int, Mapping[str, int]]) -> tuple[Metric, ...]:
    """Return what one application holds on average where most were broken down, ``part_<name>`` in bytes."""
    most = max(parts, default=0)
    return tuple(Metric(f"part_{name}", held / most, "bytes") for name, held in parts.get(most, {}).items())


def make_metrics(within_slo: int, points: Sequence[Point]) -> tuple[Metric, ...]:
    """Return how many ``applications`` ran without breaking the service level, of how many it is certain that it held
    (``applications_held``), and their memory in bytes, by ruler: what the first one took (``_first``) and the mean of
    what each further one added (``_further``).

    These are as they were read: one of MemAvailable is below 0 where something else gave memory back meanwhile. The
    step that broke the service level counts, too: its memory is as real. ``host_others`` and
    ``throttled_periods`` are those of the step that had most of it.
    """
    held = max((point.applications for point in points if point.verdict == "held"), default=0)
    figures = [Metric("applications", within_slo, "1"), Metric("applications_held", held, "1")]
    numbers = [name for name in Point.__struct_fields__ if name != "verdict"]
    columns = {name: [_to_number(getattr(point, name)) for point in points] for name in numbers}
    for ruler in RULERS:
        first, further = first_bytes(columns, ruler), further_bytes(columns, ruler)
        figures += [Metric(f"{ruler}_first", first, "bytes")] if first is not None else []
        figures += [Metric(f"{ruler}_further", fmean(further), "bytes")] if further else []
    for name in ("host_others", THROTTLED_PERIODS):
        figures.append(Metric(name, max(columns[name], default=0.0), "1"))
    return tuple(figures)
