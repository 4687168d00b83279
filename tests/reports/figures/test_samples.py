"""A load over time: the trial in the middle is drawn, on shared axes, and nothing where nothing was read."""

from __future__ import annotations

import re
from typing import Any

import pytest

from reports.figures.samples import draw_samples
from testbed.analysis import read_run
from testbed.results import Metric, RunFolder, Trial
from testbed.sampler.records import COLUMNS, Row, tabulate

WriteRun = Any
MIB = 2**20


def make_rows(
    number: int, busy: float, mib: float, seconds: int = 10, instances: tuple[str, ...] = ("web",)
) -> list[Row]:
    """Ten rows a second; an instance keeps ``busy`` processors busy, the host waits for one half of the time."""
    rows = []
    for at in range(seconds * 10 + 1):
        for name in instances:
            values = {"cpu_ns": round(busy * 1e8 * at), "cgroup_bytes": round(mib * MIB)}
            values |= {"throttled_ns": 0, "nr_periods": at} if at % 10 == 0 else {}
            rows.append(Row(at / 10, f"t{number:03}-{name}", values))
        rows.append(Row(at / 10, "host", {"busy": 0.25, "cpu_some_us": 50_000 * at, "available_bytes": 9e9}))
    return rows


def add_load(
    folder: RunFolder,
    number: int,
    rows: list[Row],
    cost_s: float = 0.001,
    rate: float = 50.0,
    platform: str = "container",
) -> None:
    metrics = (Metric("cpu_per_request", cost_s, "s"), Metric("latency_p99", cost_s, "s"))
    samples = folder.write_samples(f"t{number:03}", COLUMNS, tabulate(rows))
    parameters = {"rate_per_s": 50.0}
    folder.append(Trial(number, number, platform, "utilisation", "ok", "", parameters, metrics, samples))


@pytest.fixture
def folder(write_run: WriteRun) -> RunFolder:
    return RunFolder.open(write_run(platforms=("container", "vm"), starts=0, ramps=0, blocks=0))


def draw(folder: RunFolder) -> str:
    (picture,) = draw_samples(read_run(folder))
    return str(picture.markup)


def test_each_row_is_in_its_unit_and_from_the_trial_in_the_middle(folder: RunFolder) -> None:
    for number, (cost_s, busy) in enumerate([(0.001, 0.1), (0.003, 0.3), (0.002, 0.2)], 1):
        add_load(folder, number, make_rows(number, busy, 40), cost_s)
    (picture,) = draw_samples(read_run(folder))
    assert "container (trial 3): processor time web 0.2 processors busy" in picture.alt
    assert "memory charged web 40 MiB" in picture.alt and "held back by the quota web 0 processors" in picture.alt
    assert "host: processors busy host 25 % of all" in picture.alt
    assert "waiting for a processor host 50 % of the time" in picture.alt
    assert "trial 3, 50 requests/s" in picture.markup


def test_what_was_not_read_has_no_row(folder: RunFolder) -> None:
    add_load(folder, 1, make_rows(1, 0.5, 40))
    markup = draw(folder)
    assert "Waiting for a processor" in markup and "Waiting for memory" not in markup and "disk" not in markup


def test_a_row_has_one_axis_for_all_platforms(folder: RunFolder) -> None:
    add_load(folder, 1, make_rows(1, 0.5, 100))
    add_load(folder, 2, make_rows(2, 0.5, 400), platform="vm")
    paths = re.findall(r'<path d="M[\d.]+ ([\d.]+)[^"]*" class="line ink dash0"', draw(folder))
    container, vm = (float(paths[at]) for at in (2, 5))
    heights = [56 - y for y in (container, vm)]
    assert heights[1] / heights[0] == pytest.approx(4, rel=0.01), "memory, the third row in each column"


@pytest.mark.parametrize("mib", [0.3, 7, 44, 99, 101, 230, 395, 427, 512, 2040])
def test_an_axis_has_two_labels_at_least(folder: RunFolder, mib: float) -> None:
    add_load(folder, 1, make_rows(1, 0.5, mib))
    _, _, throttled, memory, *_ = draw(folder).split('class="cell"')
    assert len(re.findall('<text [^>]+dx="-6"', memory)) >= 2
    assert len(re.findall('<text [^>]+dx="-6"', throttled)) == 1, "there is nothing but 0"


def test_very_long_loads_are_thinned_and_many_instances_chosen(folder: RunFolder) -> None:
    rows = make_rows(1, 0.5, 100, 600, ("a", "b", "c", "d"))
    rows += [Row(0.0, "t001-idle", {"cpu_ns": 0}), Row(600.0, "t001-idle", {"cpu_ns": 5})]
    add_load(folder, 1, rows)
    (picture,) = draw_samples(read_run(folder))
    assert len(picture.markup) < 60_000
    assert "<li>" in picture.markup and picture.markup.count("<li>") == 4, "three instances and the host"
    assert "idle" not in picture.markup and "Of many instances the 3" in picture.caption


def test_runs_without_samples_have_no_picture(folder: RunFolder, full_run: Any) -> None:
    assert draw_samples(read_run(RunFolder.open(full_run))) == [], "as an older testbed wrote it"
    add_load(folder, 1, make_rows(1, 0.5, 40))
    add_load(folder, 2, make_rows(2, 0.5, 40), 0.002)
    (folder.path / "samples" / "t001.csv").write_bytes(b"\xff\xfe")
    assert "trial 2" in draw(folder), "the other one is still there"
    (folder.path / "samples" / "t002.csv").unlink()
    assert draw_samples(read_run(folder)) == []


@pytest.mark.parametrize(
    "damage",
    [
        "t_s,name,cpu_ns\n0,web,1\n0,web,1e308\nnan,web,5\n",
        "t_s,name,cpu_ns,cgroup_bytes\n0,<b>,0,1e18\n1e18,<b>,1e18,-1e18\n2,,,\n",
        "t_s,name\n1,web\n",
        "name,cpu_ns\nweb,1\n",
        "t_s,name,cpu_ns,busy\n0,host,,0.5\n0,host,,x\n-5,web,3,\n-4,web,9,\n",
    ],
)
def test_damaged_samples_break_nothing(folder: RunFolder, damage: str) -> None:
    add_load(folder, 1, make_rows(1, 0.5, 40))
    (folder.path / "samples" / "t001.csv").write_text(damage)
    for picture in draw_samples(read_run(folder)):
        assert "<b>" not in picture.markup and "nan" not in picture.markup and "inf" not in picture.markup
