"""Runs and comparisons in the formats of others, read again as their readers do."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from reports.exports import junit, markdown, openmetrics, tables
from reports.exports.parquet import export as export_parquet
from testbed.results import Trial
from testbed.runs.compare import Limits, compare_sides
from testbed.runs.sides import Measured, measure

WriteRun = Callable[..., Path]


@pytest.fixture
def measured(write_run: WriteRun) -> Measured:
    failed = Trial(900, 90, "vm", "start", "failed", "not ready within 120 s")
    return measure(write_run(ramps=1, blocks=6, extra=[failed], source={"commit": "c" * 40, "dirty": False}))


def test_junit_has_a_case_for_each_metric_and_platform(measured: Measured) -> None:
    root = ElementTree.fromstring(junit.export_run(measured))
    assert [suite.get("name") for suite in root] == ["clickme.container", "clickme.vm"]
    cases = {(case.get("classname"), case.get("name")) for case in root.iter("testcase")}
    assert ("clickme.container", "start/ready") in cases and ("clickme.vm", "utilisation/latency_p99@50") in cases
    assert int(root.get("tests", "0")) == len(cases) and root.get("failures") == "0"


def test_junit_of_a_comparison_fails_what_got_worse_and_skips_what_cannot_be_told(
    write_run: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = write_run.func.__globals__["SCALE"]  # type: ignore[attr-defined]
    before = measure(write_run(name="a", platforms=("container",), starts=12))
    monkeypatch.setitem(scale, "container", (0.9, 0.00045, 44 << 20))
    after = measure(write_run(name="b", platforms=("container",), starts=12))
    compared = compare_sides([before], [after], Limits())
    root = ElementTree.fromstring(junit.export_comparison(compared))
    by_name = {case.get("name"): {child.tag for child in case} for case in root.iter("testcase")}
    assert "failure" in by_name["start/ready"]
    assert "skipped" in by_name["density/applications"], "one ramp has no interval"
    assert root.get("failures") == "1"
    text = markdown.export_comparison(compared, gate=True)
    assert "| ❌ | container | first correct answer |" in text and "<details>" in text


def test_openmetrics_is_read_as_its_specification_says(measured: Measured) -> None:
    lines = openmetrics.export_run(measured).decode().split("\n")
    assert lines[-2:] == ["# EOF", ""]
    names: list[str] = []
    for line in lines[:-2]:
        if line.startswith("# TYPE "):
            names.append(line.split()[2])
        elif not line.startswith("#"):
            match = re.fullmatch(r'([a-z0-9_]+)\{(?:[a-z_]+="[^"]*",?)+\} (\S+) (\d+)', line)
            assert match is not None, line
            assert match[1] == names[-1], "samples of a metric stand together"
            float(match[2])
    assert len(names) == len(set(names)) and "testbed_start_ready_seconds" in names


def test_labels_are_escaped(write_run: WriteRun) -> None:
    text = openmetrics.export_run(measure(write_run(scenario='a"b\\c\nd\x1b[31m'))).decode()
    assert 'scenario="a\\"b\\\\c\\nd"' in text and "\x1b" not in text


def test_bencher_reads_values_with_their_bounds(measured: Measured) -> None:
    results = json.loads(tables.export_bencher(measured))
    ready = results["clickme/container/start"]["ready"]
    assert ready["lower_value"] <= ready["value"] <= ready["upper_value"]
    assert "latency_p99" in results["clickme/vm/utilisation@50"]


def test_otava_and_csv_have_a_row_a_run_and_a_row_a_figure(measured: Measured) -> None:
    rows = list(csv.DictReader(io.StringIO(tables.export_otava([measured, measured]).decode())))
    assert len(rows) == 2 and rows[0]["commit"] == "c" * 12
    assert float(rows[0]["container/start/ready"]) == pytest.approx(0.612, abs=0.01)
    tidy = list(csv.DictReader(io.StringIO(tables.export_csv([measured]).decode())))
    assert len(tidy) == len(measured.figures)


def test_no_cell_is_a_formula(write_run: WriteRun) -> None:
    text = tables.export_csv([measure(write_run(scenario='=HYPERLINK("x")'))]).decode()
    assert not re.search(r"(?:^|,)\"?=", text)


def test_parquet_has_trials_metrics_and_samples(measured: Measured, tmp_path: Path) -> None:
    import pandas as pd

    written = export_parquet(measured.run, tmp_path / "out")
    assert [one.path.name for one in written] == ["trials.parquet", "metrics.parquet", "samples-density.parquet"]
    frames = {one.path.stem: pd.read_parquet(one.path) for one in written}
    assert [len(frame) for frame in frames.values()] == [one.rows for one in written]
    trials, metrics = frames["trials"], frames["metrics"]
    assert len(trials) == len(measured.run.trials) and set(trials["outcome"]) == {"ok", "failed"}
    ready = metrics[(metrics["metric"] == "ready") & (metrics["platform"] == "container")]["value"]
    assert len(ready) == 10 and set(metrics["clock"]) == {"host"}
    assert {"trial", "platform", "applications", "cgroup_bytes"} <= set(frames["samples-density"].columns)
