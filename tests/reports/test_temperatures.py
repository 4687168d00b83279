"""A warm start is set against its like, and against nothing unless its cold counterpart stands beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import reports
from reports import document, summary
from reports.page import render_page
from reports.rows import make_table
from testbed.analysis import count_steady, list_alone, list_compared, read_run
from testbed.results import Metric, RunFolder, Trial

WriteRun = Any


def names(platforms: Any) -> list[str]:
    return [one.name for one in platforms]


def test_each_temperature_has_a_sentence_of_its_own(write_run: WriteRun) -> None:
    """The pooled container and the restored machine are faster than any cold one, and neither is set against it."""
    run = write_run(platforms=("vm-restored", "container-pooled", "container", "kvm", "vm"), starts=10)
    text = summary.compose(read_run(RunFolder.open(run))).headline
    cold, pooled = text.split(" Pooled: ")
    assert cold.startswith("Cold: From request to first correct answer, clickme took 0.6")
    assert "as containers" in cold and "as vm (KVM)" in cold and "times as long" in cold
    assert "pooled" not in cold and "restored" not in cold
    assert "as container (pooled)" in pooled and "times as long" not in pooled, "there is nothing else that is pooled"
    assert list_alone(read_run(RunFolder.open(run)), "start") == (), "its manifest's name for vm is cold, too"
    assert " Restored: " in pooled
    found = read_run(RunFolder.open(run))
    assert [one.temperature for one in found.platforms] == ["cold", "cold", "cold", "pooled", "restored"]


def test_a_restored_machine_without_a_cold_one_is_set_against_nothing(write_run: WriteRun) -> None:
    """Also in a folder of a run that knew nothing of temperatures: its name says enough."""
    path = write_run(platforms=("container", "vm-restored"))
    run = read_run(RunFolder.open(path))
    for measure in ("start", "density", "utilisation"):
        assert names(list_compared(run, measure)) == ["container"]
        assert names(list_alone(run, measure)) == ["vm-restored"]
    answer = summary.compose(run)
    assert "restored" not in answer.headline and "times as long" not in answer.headline
    assert (
        "vm-restored (KVM) starts warm, and is set against nothing in start and density and utilisation: this run has"
        " no figure of vm started cold to stand beside it. Measure both: --platforms vm,vm-restored."
    ) in answer.warnings
    own = [sentence for sentence in answer.details if sentence.startswith("vm-restored (KVM): ")]
    assert len(own) == 1 and "first correct answer after 0." in own[0]
    assert not any("restored" in sentence for sentence in answer.details if sentence not in own)
    for row in make_table(path):
        assert "vm-restored" not in row.cells or row.measure == "trials"
    data = document.as_json(path)["platforms"]
    assert data["vm-restored"]["temperature"] == "restored" and data["container"]["temperature"] == "cold"
    not_compared = {"start": False, "density": False, "utilisation": False}
    others = {"work": True, "consolidation": True}
    assert data["vm-restored"]["compared"] == {**not_compared, **others}, "there is none that could not be"
    page = render_page(run)
    assert (
        "vm-restored (KVM), which starts warm, set against nothing: this run has no figure of vm started cold." in page
    )
    assert reports.render(path).exists()


def test_a_cold_row_that_failed_is_none(write_run: WriteRun) -> None:
    failed = Trial(900, 90, "container", "start", "failed", "not ready within 20 s")
    path = write_run(platforms=("container-pooled", "kvm"), ramps=0, blocks=0, extra=[failed])
    assert names(list_alone(read_run(RunFolder.open(path)), "start")) == ["container-pooled"]


def steady_trial(number: int, platform: str, steady_s: float | None) -> Trial:
    metrics = [Metric("ready", 0.6, "s"), Metric("steady_window", 3.0, "s")]
    metrics += [Metric("steady", steady_s, "s"), Metric("steady_latency", 0.002, "s")] if steady_s else []
    if platform == "container-pooled":
        metrics += [Metric("pool_fill", 0.02, "s"), Metric("pool_memory", 1 << 20, "bytes")]
    return Trial(number, number, platform, "start", "ok", metrics=tuple(metrics))


def test_first_answer_and_steady_latency_are_both_given(write_run: WriteRun, tmp_path: Path) -> None:
    extra = [steady_trial(number, "container", 0.8 if number < 7 else None) for number in range(8)]
    extra += [steady_trial(10 + number, "container-pooled", 0.7) for number in range(8)]
    path = write_run(platforms=("container", "container-pooled"), starts=0, ramps=0, blocks=0, extra=extra)
    run = read_run(RunFolder.open(path))
    assert count_steady(run, "container") == (7, 8)
    text = summary.describe_answer(path)
    assert "Cold: Since the request, latency was steady after 0.800 s as containers" in text
    assert "and not within its window in 1 of 8 trials" in text
    assert "Pooled: Since the request, latency was steady after 0.700 s as container (pooled)" in text
    never = [steady_trial(number, "container", None) for number in range(8)]
    path = write_run(name="never", platforms=("container",), starts=0, ramps=0, blocks=0, extra=never)
    told = summary.describe_answer(path)
    assert told.endswith(
        "\nSince the request, latency was not steady within its window in 8 of 8 trials as containers."
    )
    path = write_run(name="both", platforms=("container", "container-pooled"), starts=0, ramps=0, blocks=0, extra=extra)
    rows = {row.figure: row.cells for row in make_table(path)}
    assert rows["latency steady"]["container"].startswith("0.800 s")
    assert rows["made before the request"] == {"container-pooled": "0.0200 s (0.0200–0.0200)"}
    assert rows["memory while it waits"]["container-pooled"].startswith("1.00 MiB")
    page = render_page(run)
    assert "trials in which it became steady" in page and "7 of 8" in page and "8 of 8" in page
