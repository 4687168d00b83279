"""Density ramps with real processes in real cgroups: what stops them, and what a copy takes."""

from __future__ import annotations

import csv
import os
import re
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from testbed.interruption import Interrupted, raise_on_signals
from testbed.measures.context import RunContext
from testbed.measures.schedule import PlannedTrial
from testbed.measures.trials import run_trials
from testbed.results import Trial
from tests.testbed.measures.conftest import SETTINGS, MeteredPlatform

MakeContext = Callable[..., RunContext]
MIB = 1 << 20
PLANNED = PlannedTrial(3, 2, "local", "density")


def run(context: RunContext) -> Trial:
    run_trials(context, PLANNED)
    (trial,) = context.folder.trials()
    return trial


def samples(context: RunContext, trial: Trial) -> list[dict[str, str]]:
    assert trial.samples is not None
    with (context.folder.path / "samples" / trial.samples).open() as file:
        return list(csv.DictReader(file))


@pytest.mark.root
def test_it_looks_at_given_steps_only(make_context: MakeContext) -> None:
    context = make_context(density=replace(SETTINGS.density, steps=(2, 3)))
    trial = run(context)
    assert trial.outcome == "ok" and trial.value("applications") == 3
    rows = samples(context, trial)
    assert [row["applications"] for row in rows] == ["0", "2", "3"]
    assert trial.value("memory_cgroup_first") is None and (trial.value("memory_cgroup_further") or 0) > 0


@pytest.mark.root
def test_the_cap_stops_the_ramp_and_each_application_takes_its_memory(make_context: MakeContext, platform: Any) -> None:
    context = make_context(web={"HOLD_MIB": "24"})
    trial = run(context)
    assert trial.outcome == "ok"
    assert re.fullmatch(
        r"cap: 3 applications; undecided there: 0 of \d+ requests slower than 150 ms \(0.0% to .*%\), too few .* 1%",
        trial.reason,
    )
    assert (trial.value("applications"), trial.value("applications_held")) == (3, 0)
    for ruler, most_mib in (("memory_cgroup", 60), ("memory_pss", 60), ("memory_available", 300)):
        for figure in ("first", "further"):
            value = trial.value(f"{ruler}_{figure}")
            assert value is not None
            assert value < most_mib * MIB
            assert value > 24 * MIB or ruler == "memory_available", "each application holds 24 MiB"
    assert 0 <= (trial.value("host_others") or 0) <= 1
    assert (trial.value("part_application") or 0) > 24 * MIB
    assert sum(metric.value for metric in trial.metrics if metric.metric.startswith("part_")) < 64 * MIB
    rows = samples(context, trial)
    assert [row["applications"] for row in rows] == ["0", "1", "2", "3"]
    assert [float(row["cgroup_bytes"]) for row in rows] == sorted(float(row["cgroup_bytes"]) for row in rows)
    assert all(0 < float(row["p50_ms"]) <= float(row["p99_ms"]) < 150 for row in rows[1:])
    requests = [int(row["requests"]) for row in rows]
    assert requests[0] == 0 < requests[1] < requests[2] < requests[3] < 60, "20 a second each, in 0.4 s"
    assert {row["windows"] for row in rows[1:]} == {"1"}, "no window more where it could not decide"
    assert [row["verdict"] for row in rows] == ["", "undecided", "undecided", "undecided"]
    assert all(0 < float(row["start_s"]) < 5 for row in rows[1:])
    assert all(0 <= float(row[f"{what}_pressure"]) <= 1 for row in rows for what in ("cpu", "memory", "io"))
    with (context.folder.path / "samples" / "t003-instances.csv").open() as file:
        sampled = list(csv.DictReader(file))
    assert {row["name"] for row in sampled} == {
        "host", *(f"t003-a{number}-{service}" for number in range(3) for service in ("web", "store"))
    }  # fmt: skip
    with (context.folder.path / "samples" / "t003-parts.csv").open() as file:
        parts = list(csv.DictReader(file))
    held = {int(row["applications"]): int(row["bytes"]) for row in parts if row["part"] == "application"}
    assert list(held) == [1, 2, 3], "one, twice as many, and the end"
    assert all(count * 24 * MIB < size < count * 60 * MIB for count, size in held.items())
    assert platform.pids() == []


@pytest.mark.root
def test_what_no_cgroup_has_is_metered(make_context: MakeContext, cgroup_parent: str) -> None:
    metered = MeteredPlatform(cgroup_parent)
    context = replace(make_context(web={"HOLD_MIB": "24"}), platforms={"local": metered})
    trial = run(context)
    assert trial.outcome == "ok" and trial.value("applications") == 3
    for figure in ("first", "further"):
        assert 24 * MIB < (trial.value(f"memory_metered_{figure}") or 0) < 60 * MIB
        assert trial.value(f"memory_cgroup_{figure}") is trial.value(f"memory_pss_{figure}") is None
        assert (trial.value(f"memory_available_{figure}") or 0) < 300 * MIB, "also of a host that gets some back"
    rows = samples(context, trial)
    assert [(row["cgroup_bytes"], row["pss_bytes"]) for row in rows] == [("", "")] * 4
    assert all(float(row["available_bytes"]) > metered.MORE_BYTES for row in rows)
    assert all(float(row["host_application"]) > 0 for row in rows[1:])


@pytest.mark.root
@pytest.mark.parametrize(("fault", "what"), [("SLOW_FROM", "slower than 150 ms"), ("FAIL_FROM", "failed")])
def test_a_broken_service_level_stops_the_ramp(make_context: MakeContext, fault: str, what: str) -> None:
    context = make_context(web={fault: "2"})
    trial = run(context)
    assert trial.outcome == "ok"
    assert re.fullmatch(rf"slo: \d+ of \d+ requests in 2 windows {what} \(.*\), more than 1%", trial.reason)
    assert trial.value("applications") == 1
    rows = samples(context, trial)
    assert [row["verdict"] for row in rows] == ["", "undecided", "broke"], "the broken step is recorded, too"
    assert rows[2]["windows"] == "2"
    assert float(rows[2]["slow_low"]) > 0.01 or fault == "FAIL_FROM"


@pytest.mark.root
def test_a_hiccup_does_not_end_the_ramp(make_context: MakeContext) -> None:
    """The service is slow for as long as its second application's first window lasts, and then no more."""
    trial = run(context := make_context(web={"SLOW_FROM": "2", "SLOW_REQUESTS": "5"}))
    assert trial.reason.startswith("cap: 3 applications; undecided there: ")
    rows = samples(context, trial)
    assert [row["verdict"] for row in rows] == ["", "undecided", "undecided", "undecided"]
    assert int(rows[2]["windows"]) > 1 and int(rows[2]["slow"]) >= 3


@pytest.mark.root
def test_an_application_that_does_not_start_any_more_ends_the_ramp(make_context: MakeContext, platform: Any) -> None:
    context = make_context()
    start = platform.start

    def start_two_applications(instance: Any) -> None:
        if instance.application == 2:
            nothing = replace(instance.spec.process, args=("false",))
            instance = replace(instance, specs={instance.service: replace(instance.spec, process=nothing)})
        start(instance)

    platform.start = start_two_applications
    trial = run(context)
    assert trial.outcome == "ok"
    assert trial.reason.startswith("start: small on local: the first process of store has ended")
    assert trial.value("applications") == 2


@pytest.mark.root
def test_a_first_application_that_does_not_start_fails_the_trial(make_context: MakeContext) -> None:
    trial = run(make_context(web={"EXIT_AFTER_S": "0.01", "OPEN_AFTER_S": "9"}))
    assert (trial.outcome, trial.metrics) == ("failed", ())
    assert "the first process of web has ended" in trial.reason


@pytest.mark.root
def test_an_interruption_in_the_ramp_leaves_nothing(make_context: MakeContext, platform: Any) -> None:
    context = make_context()
    context = replace(
        context, settings=replace(context.settings, density=replace(context.settings.density, window_s=30))
    )
    running: list[int] = []

    def interrupt() -> None:
        running.extend(platform.pids())
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted), raise_on_signals():
        threading.Timer(1.0, interrupt).start()
        run_trials(context, PLANNED)
    (trial,) = context.folder.trials()
    assert (trial.trial, trial.outcome, trial.reason) == (3, "interrupted", "Interrupted SIGINT")
    assert len(running) == 2 and platform.pids() == []
