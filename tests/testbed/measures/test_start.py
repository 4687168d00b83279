"""Start trials with real processes, and the figures made of a timeline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from runtime.cgroups import Throttling
from testbed.measures.context import RunContext
from testbed.measures.schedule import PlannedTrial
from testbed.measures.start import make_metrics, make_steady_metrics
from testbed.measures.steady import Answered
from testbed.measures.timeline import Timeline
from testbed.measures.trials import run_trials
from testbed.platforms.protocol import Filled, Instance

MakeContext = Callable[..., RunContext]


def test_a_trial_records_every_phase(make_context: MakeContext, platform: Any) -> None:
    context = make_context(web={"OPEN_AFTER_S": "0.1", "READY_AFTER_S": "0.2"})
    run_trials(context, PlannedTrial(7, 4, "local", "start"))
    (trial,) = context.folder.trials()
    assert (trial.trial, trial.block, trial.platform, trial.measure, trial.outcome) == (7, 4, "local", "start", "ok")
    figures = {metric.metric: metric.value for metric in trial.metrics}
    assert 0 < figures["created"] <= figures["first_process"] < figures["port_open"] < figures["ready"] < 2
    assert figures["ready"] > 0.2
    for phase in ("request", "created", "first_process", "port_open"):
        assert 0 <= figures[f"store.{phase}"] <= figures[f"web.{phase}"]
    counts = {"page_faults", "major_faults", "context_switches", "host_context_switches", "host_interrupts"}
    assert {metric.metric for metric in trial.metrics if metric.unit == "1"} == counts, "and no exits of a process"
    assert {metric.unit for metric in trial.metrics} == {"s", "1"}
    assert figures["page_faults"] > 500 and figures["context_switches"] > 4
    assert figures["host_interrupts"] > 0 and figures["host_context_switches"] >= figures["context_switches"]
    assert 0 < figures["counting"] < 0.5
    assert figures["steady_window"] == pytest.approx(0.3)
    assert "steady" not in figures, "eight requests are too few to say"
    assert not any(name.startswith("pool_") for name in figures)
    lines = (context.folder.path / "samples" / str(trial.samples)).read_text().splitlines()
    assert lines[0] == "due_s,latency_s" and len(lines) == 9
    assert (context.folder.path / "logs" / "t007-web.log").read_text().endswith("listening\n")
    assert platform.pids() == []


def test_a_start_that_fails_is_a_failed_trial_and_the_next_one_is_tried(
    make_context: MakeContext, platform: Any
) -> None:
    context = make_context()
    platform.refused.add("web")
    run_trials(context, PlannedTrial(1, 1, "local", "start"))
    platform.refused.clear()
    run_trials(context, PlannedTrial(2, 2, "local", "start"))
    first, second = context.folder.trials()
    assert (first.outcome, first.reason, first.metrics) == ("failed", "start t001-web: refused", ())
    assert second.outcome == "ok"


def test_phases_are_seconds_since_the_application_was_requested() -> None:
    base = 5_000_000_000
    services = {
        "store": {"request": base + 1_000, "created": base + 10**6, "first_process": base + 9 * 10**6},
        "web": {
            "request": base + 2 * 10**6,
            "created": base + 3 * 10**6,
            "kernel_entry": base + 4 * 10**6,
            "first_process": base + 8 * 10**6,
        },
    }
    figures = {
        metric.metric: metric.value for metric in make_metrics(Timeline(base, services, base + 10**7, base + 10**8))
    }
    assert figures["created"] == pytest.approx(0.003), "when the last service exists"
    assert figures["first_process"] == pytest.approx(0.009)
    assert figures["port_open"] == pytest.approx(0.01)
    assert figures["ready"] == pytest.approx(0.1)
    assert figures["web.kernel_entry"] == pytest.approx(0.004)
    assert figures["web.request"] == pytest.approx(0.002)
    held_back = {"web": Throttling(8, 6, 400_000_000), "store": Throttling()}
    last = make_metrics(Timeline(base, services, base + 10**7, base + 10**8, held_back))[-4:]
    assert [(one.metric, one.value, one.unit) for one in last] == [
        ("throttled_periods", 0.75, "1"),
        ("throttled", 0.4, "s"),
        ("web.throttled_periods", 0.75, "1"),
        ("web.throttled", 0.4, "s"),
    ]


def test_steady_since_the_first_answer_or_since_a_request() -> None:
    timeline = Timeline(10**9, {}, 2 * 10**9, 3 * 10**9)
    times = [Answered(4 * 10**9 + number * 10**7, 0.001 + 0.0001 * (number % 3)) for number in range(100)]
    figures = {one.metric: one.value for one in make_steady_metrics(timeline, times, 4.0)}
    assert figures == {"steady_window": 4.0, "steady": 2.0, "steady_latency": pytest.approx(0.0011)}
    slow = [Answered(one.due_ns, one.latency_s + 0.5 * (number < 20)) for number, one in enumerate(times)]
    figures = {one.metric: one.value for one in make_steady_metrics(timeline, slow, 4.0)}
    assert figures["steady"] == pytest.approx(3.2) and figures["steady_latency"] == pytest.approx(0.0011)
    assert [one.metric for one in make_steady_metrics(timeline, times[:20], 4.0)] == ["steady_window"]


def test_what_was_filled_is_in_the_figures_and_not_in_the_time(make_context: MakeContext, platform: Any) -> None:
    """A fill of a tenth of a second for each service comes before the request."""
    order = list[str]()

    def fill(instance: Instance) -> Filled:
        time.sleep(0.1)
        order.append(instance.service)
        return Filled(10**8, 1 << 20, replaced=len(order) == 1)

    context = make_context()
    platform.fill = fill
    run_trials(context, PlannedTrial(1, 1, "local", "start"))
    (trial,) = context.folder.trials()
    figures = {metric.metric: metric.value for metric in trial.metrics}
    assert order == ["store", "web"]
    assert figures["pool_fill"] == pytest.approx(0.2) and figures["pool_memory"] == 2 << 20
    assert figures["pool_replaced"] == 1
    assert figures["store.request"] < 0.1
