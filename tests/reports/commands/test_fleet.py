"""The tasks fleet and plan, end to end: tables, JSON, CSV, a page, and errors of one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from invoke import Context
from invoke.exceptions import Exit

from reports.commands.fleet import fleet
from reports.commands.plan import plan
from testbed.results import RunFolder
from tests.reports.commands.test_commands import run
from tests.testbed.test_footprints import write_run

SMALL = ("--count", "60", "--utilisation", "8", "--host", "16c,64G")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run with footprints, of machines that are not emulated."""
    path = write_run(tmp_path_factory.mktemp("measured")).folder.path
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["platforms"]["vm"] = {"label": "vm (KVM)", "emulated": False}
    manifest["host"] = {"cpu": {"processors": 2}, "memory": {"total_bytes": 24 << 30}}
    (path / "manifest.json").write_text(json.dumps(manifest))
    return str(path)


def test_a_fleet_is_printed_and_written_as_table_and_page(measured: str, tmp_path: Path) -> None:
    table, page = tmp_path / "fleet.csv", tmp_path / "fleet.html"
    done = run("fleet", "--from", measured, *SMALL, "--csv", str(table), "--html", str(page), "--compaction")
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    for part in (
        "60 servers drawn from talk at 0.08",
        "as they come, container",
        "lower bound",
        "Assumptions: mean CPU",
    ):
        assert part in text
    assert "no packing needs fewer than" in text and "as vm (KVM) on" in text and "times as many" in text
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["platform"] for row in rows] == ["container", "vm"] and rows[0]["ratio"] == ""
    assert float(rows[1]["ratio_low"]) <= float(rows[1]["ratio"]) <= float(rows[1]["ratio_high"])
    content = page.read_text()
    assert content.count("<svg") >= 4 and "<script" not in content and "src=" not in content
    for part in ("How low is low?", "Gartner", "What the ratio depends on", "95 % interval", "Sources"):
        assert part in content


def test_json_has_all_and_stands_alone_on_standard_output(measured: str) -> None:
    done = run("fleet", "--from", measured, *SMALL, "--seeds", "2", "--json")
    document = json.loads(done.stdout)
    assert document["schema"] == "testbed-fleet/1" and len(document["history"]) > 10
    (one,) = document["fleets"]
    assert one["outcome"]["pairs"][0]["ratio"]["is_interval"] and len(one["redrawn"][0]["hosts"]) == 2
    assert one["sensitivity"]["swings"] and document["footprints"][0]["memory_further"]["n"] > 2


def test_traces_and_shares_of_ones_own_are_packed(measured: str, tmp_path: Path) -> None:
    trace = tmp_path / "own.csv"
    trace.write_text("name,cores,cpu,memory_bytes\nweb,4,0.5,2e9\ndb,8,1,8e9\n")
    done = run("fleet", "--from", measured, "--servers", str(trace), "--json")
    assert json.loads(done.stdout)["fleets"][0]["outcome"]["servers"] == 2, done.stderr
    sizes = "0.6:2c,4G;0.4:8c,32G"
    done = run("fleet", "--from", measured, *SMALL[:4], "--sizes", sizes, "--json")
    assert json.loads(done.stdout)["fleets"][0]["outcome"]["servers"] == 60, done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sizes": "0.6:2c,4G;0.3:8c,32G"}, "the shares of its sizes sum to 0.9"),
        ({"host": "big"}, "--host big: no size"),
        ({"host": "1c,1G"}, "fit on no host of 1 processors and 1 GiB: server"),
        ({"headroom": "100"}, "leaves no room"),
        ({"count": "0"}, "a fleet of 0 servers"),
        ({"count": "many"}, "not a whole number"),
        ({"utilisation": "0"}, "utilisation is 0"),
        ({"servers": "nowhere.csv", "utilisation": ""}, "there is no such file"),
        ({"servers": "nowhere.csv"}, "--utilisation with a trace"),
        ({"ruler": "inch"}, "no such ruler"),
        ({"platforms": "podman"}, "has no platform podman"),
        ({"workers": "0", "seeds": "2"}, "--workers 0"),
        ({"seeds": "0"}, "1 to 1000 draws"),
        ({"power": "1,2"}, "not 4 numbers"),
        ({"zombies": "200"}, "zombies is 2"),
    ],
)
def test_bad_input_is_an_error_of_one_line(measured: str, options: dict[str, str], words: str) -> None:
    small = {"count": "60", "utilisation": "8", "host": "16c,64G"}
    with pytest.raises(Exit) as caught:
        fleet.body(Context(), from_=measured, **{**small, **options})
    assert caught.value.code == 1 and words in str(caught.value.message)


def test_a_run_without_footprints_says_what_to_run_first(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "r", {"run": "r", "scenario": "kv", "platforms": {"container": {}, "vm": {}}})
    folder.finish("finished")
    for task in (("fleet",), ("plan", "--host", "64c,512G")):
        done = run(*task, "--from", str(folder.path))
        assert done.returncode == 1
        first = "measure it first: ./invoke bench --scenario kv --platforms container,vm --measures density,utilisation"
        assert first in done.stderr


def test_a_host_is_planned(measured: str) -> None:
    done = run("plan", "--host", "64c,512G", "--from", measured, "--scenario", "clickme")
    assert done.returncode == 0, done.stderr
    assert "ports" in done.stdout and "vm (KVM)" in done.stdout
    assert "on the run's own host the model says" in " ".join(done.stdout.split())
    document = json.loads(run("plan", "--host", "64c,16G", "--from", measured, "--json").stdout)
    container, machine = document["copies"]
    assert machine["binds"] == "memory" and machine["copies"]["low"] <= machine["copies"]["value"]
    assert container["copies"]["value"] > machine["copies"]["value"] and document["schema"] == "testbed-plan/1"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": ""}, "plan: for which host?"),
        ({"scenario": "kv"}, "is a run of clickme"),
        ({"host": "64c,0.01G"}, "no copy fits on a host of 64 processors"),
        ({"rate": "0"}, "0 requests/s"),
        ({"rate": "inf"}, "inf requests/s"),
        ({"restart_within": "inf"}, "back within inf s"),
        ({"restart_within": "nan"}, "back within nan s"),
        ({"peak_to_mean": "0.1"}, "a peak is at least the mean"),
        ({"check": True, "host": "4096c,1G"}, "it is smaller than 4096 and 1 GiB"),
        ({"check": True, "rate": "5"}, "--check with --rate 5"),
    ],
)
def test_what_cannot_be_planned_is_an_error(measured: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(Exit) as caught:
        plan.body(Context(), from_=measured, **{"host": "64c,512G", **options})
    assert caught.value.code == 1 and words in str(caught.value.message)
