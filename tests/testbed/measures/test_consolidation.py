"""Servers packed with real processes in real cgroups: how many, of which kind, and why no more."""

from __future__ import annotations

import csv
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.spec import Resources
from testbed.measures.calibration import Calibration, Rate
from testbed.measures.consolidation import (
    Capacity,
    choose_cap,
    count_declared,
    find_mix,
    make_growth,
    make_metrics,
    make_offers,
)
from testbed.measures.context import RunContext
from testbed.measures.schedule import PlannedTrial
from testbed.measures.steps import Point
from testbed.measures.trials import run_trials
from testbed.results import Trial
from testbed.scenario.consolidation import Consolidation, Mix
from testbed.scenario.model import Slo

MakeContext = Callable[..., RunContext]
GIB = 1 << 30
RATE = Rate(0.05, 40.0, 0.05, 10 << 20, 1.0, 2.0)
PACKED = Consolidation(fractions=(0.05,), processors=1.0, zombies=0.5, settle_s=0.1, window_s=0.5, idle_s=0.2, cap=3)
# On a busy host, too, the level holds.
PATIENT = Slo(p99_ms=8000.0, error_fraction=0.5)


def pack(context: RunContext, *mixes: str) -> list[Trial]:
    run_trials(context, PlannedTrial(1, 1, "local", "consolidation", mixes))
    return list(context.folder.trials())


@pytest.mark.root
def test_servers_are_calibrated_once_and_packed_with_and_without_zombies(
    make_context: MakeContext, platform: Any
) -> None:
    context = make_context(web={"BURN_S": "0.001"}, consolidation=PACKED, slo=PATIENT)
    plain, mixed = pack(context, "5%", "5% + 50% zombies")
    assert [one.outcome for one in (plain, mixed)] == ["ok", "ok"]
    assert plain.reason.startswith("cap: 3 applications")
    assert (plain.value("servers"), mixed.value("servers")) == (3, 3)
    assert 0.044 < (plain.value("utilisation_before") or 0) < 0.056, "of a machine with one processor"
    assert 20 < float(plain.parameters["rate_per_s"]) < 60, "1 ms of each request is burnt"
    assert plain.parameters["rate_per_s"] == mixed.parameters["rate_per_s"]
    assert plain.parameters["calibrated_on"] == "local"
    alone, after = plain.value("alone_cpu") or 0, plain.value("utilisation_after") or 0
    assert 1.3 * alone < after, "three servers use more than one"
    assert (mixed.value("utilisation_after") or 1) < after, "one of three is idle"
    for trial in (plain, mixed):
        assert 0 <= (trial.value("idle_cpu") or 0) < 0.2 and (trial.value("idle_wakeups") or 0) < 500
        assert (trial.value("idle_memory") or 0) > 1 << 20
        assert trial.value("servers_declared") is None, "the services declare no processors"
    assert context.folder.manifest["calibration"]["platform"] == "local"
    with (context.folder.path / "samples" / (plain.samples or "")).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["applications"] for row in rows] == ["0", "1", "2", "3"]
    assert float(rows[3]["host_application"]) == after
    begun = [event for event in platform.events if event == ("start", "web")]
    assert len(begun) == 1 + 3 + 3, "calibrated once"
    assert platform.pids() == []


@pytest.mark.root
def test_a_calibration_that_is_on_record_is_taken_as_it_is(make_context: MakeContext) -> None:
    context = make_context(consolidation=replace(PACKED, cap=1), slo=PATIENT)
    context.folder.note(
        calibration={
            "platform": "other",
            "processors": 1.0,
            "host_processors": 2,
            "rates": [
                {"fraction": 0.05, "rate_per_s": 30.0, "reached": 0.05, "memory_bytes": 1, "p50_ms": 1, "p99_ms": 2}
            ],
        }
    )
    (trial,) = pack(context, "5%")
    assert (trial.parameters["rate_per_s"], trial.parameters["calibrated_on"]) == (30.0, "other")
    context.folder.note(calibration={**context.folder.manifest["calibration"], "rates": []})
    with pytest.raises(UsageError, match=r"damaged calibration in its manifest: no rate of 0\.05"):
        run_trials(context, PlannedTrial(2, 2, "local", "consolidation", ("5%",)))
    context.folder.note(calibration={"platform": "other"})
    with pytest.raises(UsageError, match="damaged calibration in its manifest"):
        run_trials(context, PlannedTrial(2, 2, "local", "consolidation", ("5%",)))


@pytest.mark.root
def test_a_service_level_that_fails_with_one_copy_is_told_before_anything_is_packed(
    make_context: MakeContext, platform: Any
) -> None:
    context = make_context(web={"SLOW_FROM": "1"}, consolidation=PACKED)
    with pytest.raises(UsageError, match=r"the service level breaks with one copy alone at 20 requests/s.*p99 \d+ ms"):
        pack(context, "5%")
    assert context.folder.trials() == () and platform.pids() == []


def test_what_is_declared_is_the_sum_of_limits() -> None:
    host = Capacity(processors=8, memory_bytes=16 * GIB)
    assert count_declared([Resources(GIB, 1.0), Resources(GIB, 0.5)], host) == 5
    assert count_declared([Resources(4 * GIB, 0.5)], host) == 4
    assert count_declared([Resources(GIB, 1.0), Resources(GIB)], host) is None
    assert count_declared([], host) is None
    assert count_declared([Resources(GIB, 16.0)], host) == 0


def test_packed_as_declared_no_more_are_added() -> None:
    declared = replace(PACKED, packing="declared", cap=10)
    assert choose_cap(PACKED, 2) == 3
    assert (choose_cap(declared, 4), choose_cap(declared, 40)) == (4, 10)
    with pytest.raises(UsageError, match="declares no limit"):
        choose_cap(declared, None)
    with pytest.raises(UsageError, match="not one server fits"):
        choose_cap(declared, 0)


def test_a_ramp_grows_by_a_tenth_and_stops_where_limits_would() -> None:
    def go(declared: int | None, to: int) -> list[int]:
        grow, counts = make_growth(declared), [0]
        while counts[-1] < to:
            counts.append(grow(counts[-1]))
        return counts

    assert go(None, 24) == [*range(21), 22, 24]
    assert 23 in go(23, 40) and 24 not in go(23, 24)[:-1]
    assert len(go(None, 1000)) < 70


def test_zombies_have_no_load_and_the_others_begin_their_days_apart() -> None:
    offer = make_offers(replace(PACKED, shape="diurnal", window_s=5.0), Mix(0.05, 0.3), RATE)
    offers = [offer(server) for server in range(10)]
    assert [server for server, one in enumerate(offers) if one is None] == [3, 6, 9]
    begins = [one.schedule.trace[0][1] for one in offers if one is not None]
    assert len({round(begin) for begin in begins}) > 4 and max(begins) <= 2.5 * RATE.rate_per_s + 1e-6
    with pytest.raises(UsageError, match=r"no request falls due in 0\.5 s at 0\.5"):
        make_offers(PACKED, Mix(0.05), replace(RATE, rate_per_s=0.5))(0)


def test_figures_of_a_ramp_that_broke_with_one_server() -> None:
    points = [
        Point(0, 0, 0, GIB, 0, 0, 0, 0),
        Point(1, GIB, GIB, GIB, 900, 0, 0.9, 0, requests=600, verdict="broke", host_application=0.4),
    ]
    calibration = Calibration("container", 2.0, 2, (RATE,))
    figures = {metric.metric: metric.value for metric in make_metrics(0, points, 5, RATE, calibration)}
    assert (figures["servers"], figures["servers_declared"], figures["declared"]) == (0, 0, 5)
    assert figures["alone_cpu"] == 0.4 and figures["alone_p99"] == 0.9
    assert not {"cpu_overhead", "utilisation_after", "utilisation_declared", "packed_p99"} & figures.keys()
    held = [points[0], replace(points[1], verdict="held")]
    (overhead,) = (one.value for one in make_metrics(1, held, 5, RATE, calibration) if one.metric == "cpu_overhead")
    assert overhead == pytest.approx(8.0)


def test_a_mix_is_found_by_its_name() -> None:
    settings = Consolidation()
    assert [mix.name for mix in settings.mixes] == ["5%", "8%", "12%", "8% + 30% zombies"]
    assert all(find_mix(settings, mix.name) == mix for mix in settings.mixes)
