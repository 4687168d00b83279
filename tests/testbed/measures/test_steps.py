"""The figures of a ramp's steps, and what the whole of them says."""

from __future__ import annotations

from typing import Any, Literal

from msgspec.structs import replace

from runtime.cgroups import Throttling
from testbed.histograms import build_histogram
from testbed.load.open_loop import LoadResult
from testbed.measures.level import Verdict, judge
from testbed.measures.steps import (
    Look,
    Point,
    Processors,
    is_power_of_two,
    list_parts,
    make_metrics,
    make_part_metrics,
    make_point,
    make_window,
)
from testbed.sample import CLOCK_TICKS_PER_S, HostReading, Reading
from testbed.sampler.records import Row
from testbed.sampler.sampler import Account, Sampling
from testbed.scenario.model import Slo

MIB = 1 << 20
SLO = Slo(p99_ms=250, error_fraction=0.01)


def load(latencies_usec: list[int], failed: int = 0, **changes: Any) -> LoadResult:
    result = LoadResult(
        ok=len(latencies_usec),
        failed=failed,
        failures={},
        latencies=build_histogram(latencies_usec),
        elapsed_s=2.0,
        began_ns=0,
        ended_ns=1,
        connections_opened=1,
        lag_p99_s=0.0,
        generator_cpu_s=0.25,
        late=False,
        reason="",
    )
    return replace(result, **changes)


def look(result: LoadResult, waited_us: int) -> Look:
    """A window of two seconds of a host with two processors, half of them busy; the application used half of that."""
    ticks = CLOCK_TICKS_PER_S
    before = Processors(HostReading(0, 0, 0, 0, 9 * MIB), 1.0, 0.0, Throttling(10, 1, 0))
    after = Processors(HostReading(1, 2 * ticks, 0, 4 * ticks, 8 * MIB), 2.0, 0.25, Throttling(20, 6, 5))
    rows = (Row(0.0, "host", {"cpu_some_us": 0}), Row(2.0, "host", {"cpu_some_us": waited_us}))
    account = Account(2.0, 0.1, 0.0, 0.0, 20, 20, 0.0, {}, {}, {})
    return Look(result, make_window(result, SLO.p99_ms), before, after, Sampling(rows, account))


def test_a_step_puts_its_windows_together() -> None:
    looks = [look(load([1_000] * 99 + [300_000]), 200_000), look(load([3_000] * 100, failed=1), 600_000)]
    readings = [Reading(0, 0, 20 * MIB, 15 * MIB), Reading(0, 0, 22 * MIB, 16 * MIB)]
    point = make_point(3, readings, looks[1].after.host, looks, judge([one.window for one in looks], SLO), 0.7)
    assert (point.applications, point.cgroup_bytes, point.pss_bytes) == (3, 42 * MIB, 31 * MIB)
    assert (point.available_bytes, point.start_s, point.windows) == (8 * MIB, 0.7, 2)
    assert (point.requests, point.slow, point.verdict) == (200, 1, "undecided")
    assert 0 < point.slow_low < 0.005 < point.slow_high < 0.05
    assert 0.9 < point.p50_ms < 3.1 and abs(point.error_fraction - 1 / 201) < 1e-9
    assert (point.host_utilisation, point.throttled_periods) == (0.5, 0.5)
    assert abs(point.host_others - (0.5 - 1 / 4 - (0.25 + 0.25 + 0.1) / 4)) < 1e-9
    assert (point.cpu_pressure, point.io_pressure) == (0.2, 0.0)


def test_the_first_application_is_apart_from_further_ones() -> None:
    taken = [0, 45, 85, 125, 165]
    points = [
        Point(n, taken[n] * MIB, n * 30 * MIB, (9000 - n * 50) * MIB, 1, 0, 0, n / 100) for n in range(len(taken))
    ]
    figures = {metric.metric: metric.value for metric in make_metrics(4, points)}
    assert figures["memory_cgroup_first"] == 45 * MIB
    assert figures["memory_cgroup_further"] == 40 * MIB
    assert figures["memory_pss_further"] == 30 * MIB
    assert figures["memory_available_first"] == figures["memory_available_further"] == 50 * MIB
    assert figures["host_others"] == 0.04
    assert figures["throttled_periods"] == 0
    most = make_metrics(2, [*points[:2], replace(points[2], throttled_periods=0.4)])[-1]
    assert (most.metric, most.value, most.unit) == ("throttled_periods", 0.4, "1")
    alone = [metric.metric for metric in make_metrics(0, points[:1])]
    assert alone == ["applications", "applications_held", "host_others", "throttled_periods"]
    assert "memory_pss_further" not in {metric.metric for metric in make_metrics(1, points[:2])}


def test_what_is_certain_is_apart_from_what_did_not_break() -> None:
    verdicts: list[Verdict | Literal[""]] = ["", "held", "undecided", "held", "undecided", "broke"]
    points = [Point(n, 0, 0, 0, 1, 0, 0, 0, verdict=verdict) for n, verdict in enumerate(verdicts)]
    figures = {metric.metric: metric.value for metric in make_metrics(4, points)}
    assert (figures["applications"], figures["applications_held"]) == (4, 3)


def test_memory_is_broken_down_when_the_number_has_doubled() -> None:
    assert [count for count in range(20) if is_power_of_two(count)] == [1, 2, 4, 8, 16]
    parts = {1: {"application": 50, "files": 7}, 3: {"application": 90}, 2: {"application": 70}}
    assert list_parts(parts) == [
        (1, "application", 50),
        (1, "files", 7),
        (2, "application", 70),
        (3, "application", 90),
    ]
    (last,) = make_part_metrics(parts)
    assert (last.metric, last.value, last.unit) == ("part_application", 30, "bytes")
    assert make_part_metrics({}) == ()
