"""Utilisation trials with real processes in real cgroups, under the real load generator."""

from __future__ import annotations

import csv
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from runtime.cgroups import Throttling
from testbed.histograms import build_histogram
from testbed.load.arrivals import Schedule
from testbed.load.open_loop import LoadResult
from testbed.load.requests import Request
from testbed.measures.context import RunContext
from testbed.measures.schedule import PlannedTrial
from testbed.measures.trials import run_trials
from testbed.measures.utilisation import (
    Window,
    describe_outcome,
    judge_load,
    make_latency_metrics,
    make_metrics,
)
from testbed.sample import CLOCK_TICKS_PER_S, HostReading
from testbed.sampler.records import Usage
from tests.testbed.measures.conftest import MeteredPlatform

MakeContext = Callable[..., RunContext]
MIB = 1 << 20
PLANNED = PlannedTrial(5, 2, "local", "utilisation", (40.0, 20.0))


def load_result(**changes: Any) -> LoadResult:
    result = LoadResult(
        ok=100,
        failed=2,
        failures={"timeout": 2},
        latencies=build_histogram([10_000] * 100),
        elapsed_s=5.0,
        began_ns=0,
        ended_ns=5_000_000_000,
        connections_opened=1,
        lag_p99_s=0.0003,
        generator_cpu_s=0.1,
        late=False,
        reason="",
    )
    return replace(result, **changes)


@pytest.mark.root
def test_what_no_cgroup_has_is_metered(make_context: MakeContext, cgroup_parent: str) -> None:
    context = make_context(web={"BURN_S": "0.004", "HOLD_MIB": "24"})
    run_trials(replace(context, platforms={"local": MeteredPlatform(cgroup_parent)}), PLANNED)
    for trial in context.folder.trials():
        figures = {metric.metric: metric.value for metric in trial.metrics}
        assert 0.003 <= figures["cpu_per_request"] < 0.012, "each request uses 4 ms, by a clock of its own"
        assert figures["memory_metered"] > 24 * MIB and not {"memory_cgroup", "memory_pss"} & figures.keys()
        assert figures["memory_per_request"] == pytest.approx(figures["memory_metered"] / figures["achieved_rate"])
        assert 0 < figures["host_application"] <= figures["host_utilisation"] <= 1


@pytest.mark.root
def test_each_rate_is_a_trial_with_the_cost_of_a_request(make_context: MakeContext, platform: Any) -> None:
    context = make_context(web={"BURN_S": "0.004", "HOLD_MIB": "24"})
    run_trials(context, PLANNED)
    trials = context.folder.trials()
    assert [(trial.trial, trial.parameters["rate_per_s"]) for trial in trials] == [(5, 40.0), (6, 20.0)]
    assert not any(trial.outcome == "failed" for trial in trials), "void, on a busy host, has its figures, too"
    for trial, requests in zip(trials, (20, 10), strict=True):
        figures = {metric.metric: metric.value for metric in trial.metrics}
        assert figures["requests_ok"] == pytest.approx(requests, rel=0.5)
        assert figures["requests_failed"] == 0
        assert 0.003 <= figures["cpu_per_request"] < 0.012, "each request uses 4 ms, by a clock of its own"
        enough = figures["requests_ok"] >= 10 and not figures["saturated"]  # as it is on a busy host
        assert ("latency_p50" in figures) == enough, "of fewer, less than five lie beyond it"
        assert 0.004 <= figures.get("latency_p50", 0.004) < 2
        assert "latency_p90" not in figures
        kept = context.folder.read_histogram(trial)
        assert kept is not None and kept.get_total_count() == figures["requests_ok"]
        assert figures.get("latency_n", figures["requests_ok"]) == figures["requests_ok"]
        assert 24 * MIB < figures["memory_pss"] < 60 * MIB
        assert figures["memory_cgroup"] > 24 * MIB
        assert figures["memory_per_request"] == pytest.approx(figures["memory_cgroup"] / figures["achieved_rate"])
        assert figures["host_context_switches_per_request"] > 1 and figures["host_interrupts_per_request"] > 0.1
        assert 0 <= figures["context_switches_per_request"], "a thread of each connection, which has ended, is lost"
        assert "exits_per_request" not in figures, "processes have none"
        assert 0 < figures["host_utilisation"] <= 1
        assert 0 < figures["host_application"] < 1
        assert 0 < figures["host_generator"] < 1
        assert 0 <= figures["host_others"] <= figures["host_utilisation"]
        assert 0 < figures["sampler_cpu"] < 0.1 and 0 < figures["sampler_pss_cpu"] < 0.1
        assert 5 < figures["sampler_rate"] < 12
        assert trial.samples is not None
        with (context.folder.path / "samples" / trial.samples).open() as file:
            rows = list(csv.DictReader(file))
        assert {row["name"] for row in rows} == {"t005-web", "t005-store", "host"}
        of_web = [row for row in rows if row["name"] == "t005-web"]
        assert float(of_web[-1]["cpu_ns"]) > 0 and float(of_web[-1]["pss_bytes"]) > 24 * MIB
        assert any(row["busy"] for row in rows if row["name"] == "host")
    assert platform.events.count(("start", "web")) == 1, "one application serves all rates"
    assert platform.pids() == []


@pytest.mark.root
def test_a_mix_is_offered_as_its_schedule_has_it(make_context: MakeContext) -> None:
    mix = (Request("POST", "/click", weight=3), Request("GET", "/health"))
    context = make_context()
    ramp = Schedule("ramp", from_per_s=20.0)
    load = replace(context.settings.load, requests=mix, schedule=ramp, duration_s=1.0, warmup_s=0.0)
    context = replace(context, settings=replace(context.settings, load=load))
    run_trials(context, replace(PLANNED, levels=(40.0,)))
    (trial,) = context.folder.trials()
    assert (trial.value("requests_ok"), trial.value("requests_failed")) == (30, 0), "the mean of 20 and 40 for a second"


@pytest.mark.root
def test_errors_are_counted_and_a_load_without_a_success_fails(make_context: MakeContext) -> None:
    context = make_context(web={"FAIL_FROM": "1"})
    run_trials(context, PLANNED)
    for trial in context.folder.trials():
        assert trial.outcome == "failed"
        assert trial.reason.startswith("no request succeeded: ") and "status 500" in trial.reason
        assert (trial.value("requests_ok"), (trial.value("requests_failed") or 0) > 2) == (0, True)
        assert trial.value("cpu_per_request") is None


@pytest.mark.root
def test_an_application_that_dies_under_load_fails_this_rate_and_the_rest(
    make_context: MakeContext, platform: Any
) -> None:
    context = make_context(web={"CRASH_ON_POST": "1"})
    run_trials(context, PLANNED)
    trials = context.folder.trials()
    assert [(trial.trial, trial.outcome) for trial in trials] == [(5, "failed"), (6, "failed")]
    assert all("the first process of web has ended" in trial.reason for trial in trials)
    assert [trial.parameters["rate_per_s"] for trial in trials] == [40.0, 20.0]
    assert platform.pids() == []


def test_a_late_generator_voids_the_trial() -> None:
    assert judge_load(load_result()) == ("ok", "")
    assert judge_load(load_result(late=True, reason="generator late: p99 lag 9 ms")) == (
        "void",
        "generator late: p99 lag 9 ms",
    )
    nothing_succeeded = judge_load(load_result(ok=0, late=True, reason="generator late"))
    assert nothing_succeeded == ("failed", "no request succeeded: 2 x timeout")


def test_figures_are_summed_over_instances_and_divided_by_successes() -> None:
    used = {
        "web": Usage(1.5, 200.0, 150.0, 20, Throttling(100, 25, 2_000_000_000)),
        "store": Usage(0.5, 40.0, 30.0, 20, Throttling(100, 5, 0)),
    }
    window = Window(load_result(), used, HostReading(0, 0, 0, 0, 0), HostReading(1, 30, 0, 120, 0))
    figures = {metric.metric: metric.value for metric in make_metrics(20.0, window)}
    assert figures["cpu_per_request"] == pytest.approx(0.02)
    assert (figures["memory_cgroup"], figures["memory_pss"]) == (240.0, 180.0)
    assert figures["achieved_rate"] == pytest.approx(20.0)
    assert figures["memory_per_request"] == pytest.approx(12.0)
    assert figures["host_utilisation"] == pytest.approx(0.25)
    assert figures["latency_p90"] == pytest.approx(0.01, rel=1e-2)
    assert figures["latency_n"] == 100
    assert figures["saturated"] == 0
    assert (figures["throttled_periods"], figures["web.throttled_periods"], figures["web.throttled"]) == (0.15, 0.25, 2)


@pytest.mark.parametrize(
    ("n", "told"),
    [(9, ""), (10, "p50"), (49, "p50"), (50, "p90"), (499, "p90"), (500, "p99"), (4999, "p99"), (5000, "p99_9")],
)
def test_a_percentile_is_told_when_five_requests_lie_beyond_it(n: int, told: str) -> None:
    names = ["p50", "p90", "p99", "p99_9"]
    expected = [f"latency_{name}" for name in names[: names.index(told) + 1 if told else 0]]
    load = load_result(ok=n, latencies=build_histogram([10_000] * n))
    assert [metric.metric for metric in make_latency_metrics(load)] == [*expected, "latency_n"]
    window = Window(load, {}, HostReading(0, 0, 0, 0, 0), HostReading(1, 30, 0, 120, 0))
    told_of_lag = {metric.metric for metric in make_metrics(20.0, window)}
    assert ("generator_lag_p99" in told_of_lag, "generator_lag_max" in told_of_lag) == (n + load.failed >= 500, True)
    shown = describe_outcome(load)
    assert shown == (f"{told.replace('_', '.')} 10.0 ms" if told else f"{n} answered, too few for percentiles")


def test_who_used_the_host_adds_up() -> None:
    """2 CPU seconds of 8 were the application's, 1.1 those of the generator and this process, 4 were busy in all."""
    used = {"web": Usage(1.5, 0.0, 0.0, 20), "store": Usage(0.5, 0.0, 0.0, 20)}
    ticks = CLOCK_TICKS_PER_S
    before, after = HostReading(0, 0, 0, 0, 0), HostReading(1, 4 * ticks, 0, 8 * ticks, 0)
    window = Window(load_result(generator_cpu_s=1.0), used, before, after, own_cpu_s=0.1)
    figures = {metric.metric: metric.value for metric in make_metrics(20.0, window)}
    assert figures["host_utilisation"] == 0.5
    assert figures["host_application"] == pytest.approx(0.25)
    assert figures["host_generator"] == pytest.approx(1.1 / 8)
    assert figures["host_others"] == pytest.approx(0.9 / 8)


def test_a_saturated_application_has_a_cost_and_no_latency() -> None:
    window = Window(load_result(saturated=True), {}, HostReading(0, 0, 0, 0, 0), HostReading(1, 30, 0, 120, 0))
    names = {metric.metric for metric in make_metrics(20.0, window)}
    assert "cpu_per_request" in names
    assert not any(name.startswith("latency_") for name in names)
    assert {metric.metric: metric.value for metric in make_metrics(20.0, window)}["saturated"] == 1
    assert describe_outcome(load_result(saturated=True)) == "saturated, 20/s answered"
