"""The picture that a page opens with: all platforms, like against like, no ratio of what is emulated."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import reports
from reports.figures.opening import draw_opening
from reports.overview import Overview, find_tail, make_overview, select_rate, show_ratio, write_sentence
from reports.summary import compose
from testbed.analysis import Run, estimate_start_phases, read_run
from testbed.results import Metric, RunFolder, Trial

WriteRun = Any


def overview_of(path: Path) -> tuple[Run, Overview]:
    run = read_run(RunFolder.open(path))
    return run, make_overview(run)


def test_every_platform_is_a_row_and_every_measure_a_column(write_run: WriteRun) -> None:
    run, found = overview_of(write_run(platforms=("container", "kvm"), ramps=6, blocks=6))
    assert [measure.name for measure in found.measures] == [
        "ready", "memory", "copies", "cpu_per_request", "latency_p99",
    ]  # fmt: skip
    for measure in found.measures:
        assert measure.figures["container"].ratio is None and measure.figures["container"].is_baseline
        assert measure.figures["kvm"].ratio is not None
    ready = found.measures[0].figures["kvm"]
    phases = {name: estimate_start_phases(run, name)["ready"].value for name in ("container", "kvm")}
    assert ready.ratio is not None
    assert ready.ratio == pytest.approx(phases["kvm"] / phases["container"])
    assert ready.ratio_span is not None and ready.ratio_span[0] < ready.ratio < ready.ratio_span[1]
    assert ready.verdict == "more" and show_ratio(ready).endswith("\N{MULTIPLICATION SIGN}")


def test_an_emulated_platform_has_figures_and_no_ratio(write_run: WriteRun) -> None:
    run, found = overview_of(write_run(platforms=("container", "vm")))
    for measure in found.measures:
        if "vm" in measure.figures:
            assert measure.figures["vm"].ratio is None and measure.figures["vm"].note == "emulated"
    assert write_sentence(run, found) == ""
    picture = draw_opening(run, found)
    assert picture is not None and "times" not in re.sub("<[^>]+>", "", picture.markup)


def test_like_is_set_against_like(write_run: WriteRun) -> None:
    platforms = ("container", "kvm", "container-pooled", "vm-restored")
    run, found = overview_of(write_run(platforms=platforms))
    assert [group.temperature for group in found.groups] == ["cold", "pooled", "restored"]
    assert [group.baseline.name for group in found.groups if group.baseline] == [
        "container", "container-pooled", "vm-restored",
    ]  # fmt: skip
    ready = found.measures[0].figures
    assert ready["container-pooled"].ratio is None, "there is nothing else that is pooled"
    sentence = write_sentence(run, found)
    assert sentence.startswith("As vm (KVM), clickme took 4.") and "pooled" not in sentence
    assert compose(run).ratios == sentence, "so the JSON has it, too"


def test_what_reached_the_cap_is_a_bound(write_run: WriteRun) -> None:
    _, found = overview_of(write_run(platforms=("container", "kvm")))
    copies = next(measure for measure in found.measures if measure.name == "copies").figures
    assert copies["container"].text == "\N{GREATER-THAN OR EQUAL TO} 12"
    assert show_ratio(copies["kvm"]).startswith("\N{LESS-THAN OR EQUAL TO} 0.4")


def test_the_noise_floor_stands_beside_every_difference(write_run: WriteRun) -> None:
    """One platform measured twice (A/A) is no row of its own, and its spread is told where ratios are."""
    extra = [
        Trial(
            n, n, name, "start", "ok", metrics=(Metric("ready", 1.0 + n % 5 / 100 + (name != "container") / 50, "s"),)
        )
        for n in range(1, 13)
        for name in ("container", "container@again")
    ]
    run, found = overview_of(write_run(platforms=("container", "kvm"), starts=0, ramps=0, blocks=0, extra=extra))
    assert [one.name for one in found.platforms] == ["container", "kvm"]
    floor = found.measures[0].floor
    assert floor is not None and 0.01 < floor < 0.1
    picture = draw_opening(run, found)
    assert picture is not None and f"A/A ±{floor:.1%}".replace("%", " %") in picture.markup
    assert "measured twice" in picture.caption


def test_few_trials_are_said_to_tell_nothing(write_run: WriteRun) -> None:
    run, found = overview_of(write_run(platforms=("container", "kvm"), starts=2, ramps=0, blocks=0))
    assert found.measures[0].figures["kvm"].verdict == "cannot tell"
    assert show_ratio(found.measures[0].figures["kvm"]).startswith("? ")
    assert write_sentence(run, found).endswith("(?: too few or too varying trials to tell.)")


def test_instruction_time_has_no_doubt(write_run: WriteRun) -> None:
    path = write_run(platforms=("container", "kvm"), starts=1, ramps=0, blocks=0, machine={"kind": "reference"})
    run, found = overview_of(path)
    assert "?" not in show_ratio(found.measures[0].figures["kvm"]) + write_sentence(run, found)


def test_the_tail_is_the_highest_that_all_have(write_run: WriteRun) -> None:
    def load(number: int, platform: str, *names: str) -> Trial:
        metrics = (Metric("cpu_per_request", 0.001, "s"), *(Metric(f"latency_{name}", 0.01, "s") for name in names))
        return Trial(number, 1, platform, "utilisation", "ok", "", {"rate_per_s": 30.0}, metrics)

    extra = [load(1, "container", "p50", "p90", "p99"), load(2, "kvm", "p50", "p90")]
    run, found = overview_of(write_run(platforms=("container", "kvm"), starts=0, ramps=0, blocks=0, extra=extra))
    assert select_rate(run) == 30.0 and find_tail(run, 30.0) == "latency_p90"
    assert [measure.head for measure in found.measures] == ["CPU time", "Latency p90"]


@pytest.mark.parametrize("count", [2, 12])
def test_the_first_screen_has_a_row_for_each_platform(write_run: WriteRun, count: int) -> None:
    """Rows have a fixed height but for labels: strip, figures, and with few rows the interval."""
    names = ["container", *(f"kind-{number}" for number in range(count - 1))]
    extra = [
        Trial(number, 1, name, "start", "ok", metrics=(Metric("ready", number + 1.0, "s"),))
        for number, name in enumerate(names)
    ]
    path = write_run(platforms=("container",), starts=0, ramps=0, blocks=0, extra=extra)
    page = reports.render(path).read_text()
    opening = page[page.index('class="matrix') : page.index("</figure>")]
    assert opening.count('class="cell"') == count
    assert page.index("<h1>") < page.index('class="matrix')
    heights = {int(height) for height in re.findall(r'class="strip" height="(\d+)"', opening)}
    assert heights == {26 if count == 2 else 18, 20}, "rows, and the axis below them"


def test_a_run_without_figures_opens_with_words(write_run: WriteRun) -> None:
    run, found = overview_of(write_run(platforms=()))
    assert found.measures == () and draw_opening(run, found) is None and write_sentence(run, found) == ""
