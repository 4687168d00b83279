"""Run folders that are damaged, foreign or hostile: a reader gives an answer or one clear error, never a traceback."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import reports
from reports import document, summary
from reports.exports import junit, markdown, openmetrics, tables
from reports.exports.parquet import export as export_parquet
from reports.fleets import data as fleet_data
from reports.fleets import page as fleet_page
from reports.fleets import terminal as fleet_terminal
from reports.fleets.data import Source
from reports.index import write_index
from reports.runs import data, page, terminal, trends
from runtime.errors import TestbedError, UsageError
from runtime.output import printable
from testbed.analysis import read_run
from testbed.fleet.capacity import CopiesQuestion, find_copies
from testbed.fleet.demands import Fit, Host
from testbed.fleet.distributions import draw_servers, talk_mix
from testbed.fleet.simulate import Question
from testbed.fleet.study import Extent, study_fleet
from testbed.footprints import read_footprints
from testbed.results import FORMAT, MOST_MANIFEST_BYTES, MOST_TRIALS_BYTES, RunFolder
from testbed.runs.compare import Limits, compare_sides
from testbed.runs.sides import measure, read_side
from testbed.runs.trend import read_trends

WriteRun = Any
SCRIPT = "<script>alert(1)</script>"
NASTY: tuple[Any, ...] = (
    1e308, -1e308, 10**400, -1, 0, 0.5, True, None, "text", "", [], {}, [1e308], {"a": {"b": [SCRIPT]}}, SCRIPT,
    float("nan"), float("inf"), "\x1b[31m\x00", "=cmd()", "x" * 100_000, [[[[[[[[[[1]]]]]]]]]], "2026-13-45T99:99",
    "\ud800",
)  # fmt: skip


def print_all(run: Path) -> None:
    summary.print_answer(run)
    json.dumps(document.as_json(run), allow_nan=False)


def compare(run: Path) -> None:
    other, hurt = read_side(str(run.parent / "whole"), run.parent), measure(run)
    several = compare_sides([*other, hurt], other, Limits(), anyway=True)
    json.dumps(data.as_json(several), allow_nan=False)
    for sides in ((other, [hurt]), ([hurt], other)):
        comparison = compare_sides(*sides, Limits(), anyway=True)
        json.dumps(data.as_json(comparison), allow_nan=False)
        assert "<script>" not in page.render_page(comparison, True)
        assert "<script>" not in markdown.export_comparison(comparison, True)
        junit.export_comparison(comparison)
        terminal.print_comparison(comparison, True)


def export(run: Path) -> None:
    one = measure(run)
    for text in (junit.export_run(one), openmetrics.export_run(one), tables.export_bencher(one)):
        assert b"\x1b" not in text
    for table in (tables.export_otava([one]), tables.export_csv([one])):
        assert b"\x1b" not in table
    export_parquet(one.run, run / "parquet")


def index(run: Path) -> None:
    path, count = write_index(run.parent)
    assert count == 2 and "<script>" not in path.read_text()


def trend(run: Path) -> None:
    read = read_trends(run.parent)
    json.dumps(trends.as_json(read), allow_nan=False)
    for line in trends.describe_trends(read):
        print(printable(line))  # as the task does


def fleet(run: Path) -> None:
    """What the tasks fleet and plan do with a run."""
    read = read_run(RunFolder.open(run))
    footprints = read_footprints(read)
    servers = draw_servers(talk_mix(0.08), 12, 1)
    found = study_fleet("8", Question(servers, footprints, Host(64, 2**36), draws=8), Extent(sensitivity=True))
    source = Source(str(read.folder.run_id), str(read.manifest.get("scenario")), footprints, ())
    assert SCRIPT not in fleet_page.render_page(source, [found], ())
    json.dumps(fleet_data.fleets_as_json(source, [found], ()), allow_nan=False)
    copies = [find_copies(CopiesQuestion(Host(64, 2**36), Fit(), 5.0, 0.7), one) for one in footprints]
    fleet_terminal.print_fleets(source.run, source.notes, [found])
    fleet_terminal.print_copies(source, copies, ())


READERS: dict[str, Callable[[Path], None]] = {
    "answer": print_all, "compare": compare, "export": export, "fleet": fleet, "index": index, "trend": trend,
}  # fmt: skip


def outlive(reader: Callable[[Path], None], run: Path) -> str:
    """Read a folder; an error is one that a person is told, in one line and a hint. Nothing in it controls a
    terminal."""
    written = io.StringIO()
    with redirect_stdout(written):
        try:
            reader(run)
        except TestbedError as error:
            assert error.message.strip() and "\n" not in error.message.strip()
            return error.message
    assert "\x1b" not in written.getvalue()
    return ""


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in nested data."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(inner, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], new)
    return copy


@pytest.fixture
def small(write_run: WriteRun) -> Path:
    """A whole run beside a copy of it that may be damaged."""
    run: Path = write_run(
        platforms=("container", "kvm"), starts=6, blocks=2, name="whole", host={"cpu": {"model": "A"}}
    )
    shutil.copytree(run, run.parent / "hurt")
    return run.parent / "hurt"


def rewrite(run: Path, manifest: Any, lines: list[Any] | None = None) -> None:
    (run / "manifest.json").write_text(json.dumps(manifest))
    if lines is not None:
        (run / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("reader", READERS)
def test_any_value_in_a_manifest(reader: str, small: Path) -> None:
    manifest = json.loads((small / "manifest.json").read_text())
    chance = random.Random(8)
    assert outlive(READERS[reader], small) == "", "what it is before it is damaged"
    for path in paths(manifest):
        for new in chance.sample(NASTY, 1):
            rewrite(small, replaced(manifest, path, new))
            outlive(READERS[reader], small)


@pytest.mark.parametrize("reader", READERS)
def test_any_value_in_a_trial(reader: str, small: Path) -> None:
    manifest = json.loads((small / "manifest.json").read_text())
    lines = [json.loads(line) for line in (small / "trials.jsonl").read_text().splitlines()]
    chance = random.Random(9)
    chosen = [next(number for number, line in enumerate(lines) if line["measure"] == name) for name in
              ("start", "density", "utilisation")]  # fmt: skip
    for number in chosen:
        for path in paths(lines[number]):
            for new in chance.sample(NASTY, 1):
                rewrite(small, manifest, replaced(lines, (number, *path), new))
                outlive(READERS[reader], small)


@pytest.mark.parametrize("reader", READERS)
def test_names_and_reasons_do_not_control_a_terminal(reader: str, small: Path) -> None:
    red = "\x1b[31mred\x1b]0;title\x07"
    manifest = json.loads((small / "manifest.json").read_text())
    platforms = {f"{red}{name}": {**facts, "label": red} for name, facts in manifest["platforms"].items()}
    lines = [json.loads(line) for line in (small / "trials.jsonl").read_text().splitlines()]
    for line in lines:
        line |= {"platform": f"{red}{line['platform']}", "reason": red, "disturbances": [red]}
    lines[0] |= {"outcome": "failed"}
    for run in (small, small.parent / "whole"):
        rewrite(run, {**manifest, "scenario": red, "platforms": platforms, "noise": [red], "status": red}, lines)
    outlive(READERS[reader], small)


@pytest.mark.parametrize("reader", READERS)
def test_any_text_in_samples(reader: str, small: Path) -> None:
    files = sorted((small / "samples").iterdir())
    contents: tuple[bytes, ...] = (
        b"", b"\n", b"applications\n", b"applications,cgroup_bytes\n0,0\n1,1e308\n2,-1e308\n", b"\x00" * 100,
        b"a,a,a\n1,2,3\n", b"applications,cgroup_bytes\n1,2,3,4,5\n", b"\xff\xfe",
        b"applications,cgroup_bytes,pss_bytes\n0,x,y\n1,nan,inf\n",
    )  # fmt: skip
    for content in contents:
        for file in files:
            file.write_bytes(content)
        told = outlive(READERS[reader], small)
        assert told == "" or (reader == "fleet" and "no ramp has two copies" in told)


@pytest.mark.parametrize("reader", READERS)
def test_half_of_a_folder(reader: str, small: Path) -> None:
    whole = {name: (small / name).read_bytes() for name in ("manifest.json", "trials.jsonl")}
    chance = random.Random(10)
    for name, content in whole.items():
        for cut in (0, 1, *(chance.randrange(len(content)) for _ in range(4))):
            (small / name).write_bytes(content[:cut])
            outlive(READERS[reader], small)
        (small / name).write_bytes(content)


@pytest.mark.parametrize("seed", range(4))
def test_the_report_of_a_hostile_run(seed: int, small: Path) -> None:
    """Many values are wrong at once, as a page takes a second; it never has a script that a run brought."""
    manifest = json.loads((small / "manifest.json").read_text())
    chance = random.Random(seed)
    for path in [path for path in paths(manifest) if path[0] not in ("run", "format")]:
        if chance.random() < 0.3:
            try:
                manifest = replaced(manifest, path, chance.choice(NASTY))
            except (KeyError, IndexError, TypeError):  # its parent was replaced before
                continue
    rewrite(small, manifest)
    outlive(lambda run: assert_harmless(reports.render(run)), small)


def assert_harmless(page_file: Path) -> None:
    assert SCRIPT not in page_file.read_text(errors="replace")


@pytest.mark.parametrize(
    "change",
    [
        {"settings": []}, {"settings": {"load": {"rates_per_s": "fast"}, "slo": [], "density": "x", "ready": 3}},
        {"host": []}, {"platforms": []}, {"platforms": {"container": "x"}}, {"noise": {}}, {"images": [1]},
        {"started": "2026-03-02T00:00:00+00:00", "finished": "2026-03-01T00:00:00+00:00"}, {"machine": "reference"},
    ],
    ids=str,
)  # fmt: skip
def test_the_report_of_a_foreign_manifest(change: dict[str, Any], small: Path) -> None:
    rewrite(small, {**json.loads((small / "manifest.json").read_text()), **change})
    assert outlive(lambda run: assert_harmless(reports.render(run)), small) == ""


def test_what_is_too_long_is_not_read(small: Path) -> None:
    """Files with holes: as long as it takes, without a byte on the disk."""
    for name, most in (("manifest.json", MOST_MANIFEST_BYTES), ("trials.jsonl", MOST_TRIALS_BYTES)):
        content = (small / name).read_bytes()
        os.truncate(small / name, 10 << 30)
        with pytest.raises(UsageError, match=f"it is longer than {most} bytes"):
            measure(small)
        (small / name).write_bytes(content)


@pytest.mark.parametrize("name", ["manifest.json", "trials.jsonl"])
def test_what_is_no_file_is_not_waited_for(name: str, small: Path) -> None:
    (small / name).unlink()
    os.mkfifo(small / name)
    with pytest.raises(UsageError, match="it is a named pipe"):
        measure(small)


@pytest.mark.parametrize("name", ["../../secret.csv", "/etc/passwd", "..", "link.csv", "a/b.csv", "\x00"])
def test_samples_are_of_the_folder_alone(name: str, small: Path) -> None:
    secret = small.parent / "secret.csv"
    secret.write_text("applications,cgroup_bytes\n0,0\n1,77\n")
    (small / "samples" / "link.csv").symlink_to(secret)
    lines = [json.loads(line) for line in (small / "trials.jsonl").read_text().splitlines()]
    for line in lines:
        line["samples"] = name
    rewrite(small, json.loads((small / "manifest.json").read_text()), lines)
    folder = RunFolder.open(small)
    assert all(folder.read_samples(trial) is None for trial in folder.trials())


def test_names_of_folders_are_hostile_too(small: Path) -> None:
    small.rename(small.parent / os.fsdecode(b"<img src=x onerror=alert(1)>\xff"))
    text = write_index(small.parent)[0].read_text()
    assert "<img" not in text and "&lt;img" in text


def test_a_newer_format_is_refused_by_all(small: Path) -> None:
    rewrite(small, {**json.loads((small / "manifest.json").read_text()), "format": FORMAT + 1})
    for name in ("answer", "compare", "export"):
        assert "this testbed reads up to" in outlive(READERS[name], small)
    assert any("this testbed reads up to" in reason for reason in read_trends(small.parent).left_out)
