"""The run folder survives a kill at any byte, and says clearly what is damaged."""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError, UsageError
from testbed.results import FORMAT, METRIC_COLUMNS, Metric, RunFolder, Trial, read_metrics

MANIFEST = {"run": "20260101T000000Z-clickme-0001", "scenario": "clickme", "seed": 1}


def _folder(base: Path) -> RunFolder:
    return RunFolder.create(base, str(MANIFEST["run"]), MANIFEST)


def _trial(number: int, reason: str = "") -> Trial:
    return Trial(
        trial=number,
        block=number // 2,
        platform="container",
        measure="utilisation",
        outcome="ok",
        reason=reason,
        parameters={"rate_per_s": 25.0, "note": "naïve – “quoted”\nsecond line"},
        metrics=(Metric("ready", 0.5 + number, "s"), Metric("memory_cgroup", 1e6, "bytes")),
        samples=None,
    )


@pytest.mark.parametrize("value", ["1e308", "-1e19", "NaN", "1e400"])
def test_a_figure_that_no_host_can_have_is_damage(tmp_path: Path, value: str) -> None:
    folder = RunFolder.create(tmp_path, "run", {"run": "run"})
    line = '{"trial":1,"block":1,"platform":"vm","measure":"start","outcome":"ok","metrics":[{"metric":"ready",'
    (folder.path / "trials.jsonl").write_text(f'{line}"value":{value},"unit":"s"}}]}}\n')
    with pytest.raises(UsageError, match=r"trials.jsonl:1: not a trial"):
        folder.trials()


def test_trials_come_back_as_they_were_written(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    written = tuple(_trial(number) for number in range(3))
    for trial in written:
        folder.append(trial)
    assert RunFolder.open(folder.path).trials() == written


@pytest.mark.no_cover
def test_a_kill_at_any_byte_loses_at_most_the_trial_being_written(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    assert folder.trials() == ()
    trials = [_trial(number) for number in range(3)]
    for trial in trials:
        folder.append(trial)
    file = folder.path / "trials.jsonl"
    whole = file.read_bytes()
    for size in range(len(whole) + 1):
        file.write_bytes(whole[:size])
        complete = whole[:size].count(b"\n")
        opened = RunFolder.open(folder.path)
        assert opened.trials() == tuple(trials[:complete])
        opened.append(_trial(99))
        assert opened.trials() == (*trials[:complete], _trial(99))


def test_every_prefix_of_a_real_writer_that_is_killed_can_be_read(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from testbed.results import *\n"
        "folder = RunFolder.create(Path(sys.argv[1]), 'killed', {'run': 'killed'})\n"
        "print('go', flush=True)\n"
        "number = 0\n"
        "while True:\n"
        "    folder.append(Trial(number, 0, 'container', 'start', 'ok', 'x' * 5000)); number += 1\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "go\n"
        while len(RunFolder.open(tmp_path / "killed").trials()) < 5:
            assert writer.poll() is None
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert writer.stdout is not None
        writer.stdout.close()
    trials = RunFolder.open(tmp_path / "killed").trials()
    assert [trial.trial for trial in trials] == list(range(len(trials)))
    assert len(trials) >= 5


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.append(_trial(0))
    with (folder.path / "trials.jsonl").open("ab") as stream:
        stream.write(b'{"trial": "one"}\n')
    folder.append(_trial(2))
    with pytest.raises(UsageError, match=r"trials\.jsonl:2: not a trial"):
        folder.trials()


def test_a_value_that_is_no_number_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.append(Trial(0, 0, "vm", "start", "ok", metrics=(Metric("ready", float("nan"), "s"),)))
    assert folder.trials() == ()


def test_a_full_disk_is_a_clear_error_and_leaves_only_whole_lines(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.append(_trial(0))
    size = (folder.path / "trials.jsonl").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))  # writes beyond it fail, the first in part
    try:
        with pytest.raises(PrerequisiteError, match="cannot write"):
            folder.append(_trial(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert (folder.path / "trials.jsonl").stat().st_size == size
    assert folder.trials() == (_trial(0),)


def test_an_occupied_name_is_an_error_that_touches_nothing(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.append(_trial(0))
    with pytest.raises(UsageError, match="exists"):
        _folder(tmp_path)
    assert folder.trials() == (_trial(0),)


def test_an_output_path_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("")
    with pytest.raises((UsageError, PrerequisiteError), match="occupied"):
        _folder(tmp_path / "occupied")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"manifest\.json is damaged"),
        ("[]", "names no run"),
        ('{"scenario": "clickme"}', "names no run"),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str, message: str) -> None:
    folder = _folder(tmp_path)
    (folder.path / "manifest.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        RunFolder.open(folder.path)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no manifest\.json"):
        RunFolder.open(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        RunFolder.open(tmp_path / "absent")


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "finished"), (ValueError("a fault"), "failed"), (KeyboardInterrupt(), "interrupted")],
)
def test_the_manifest_says_how_the_run_ended(tmp_path: Path, error: BaseException | None, status: str) -> None:
    folder = _folder(tmp_path)
    assert RunFolder.open(folder.path).manifest["status"] == "running"
    assert folder.conclude(type(error) if error else None, error, None) is False
    manifest = RunFolder.open(folder.path).manifest
    assert manifest["status"] == status
    assert manifest["finished"].endswith("+00:00")
    assert manifest["seed"] == 1


def test_metrics_are_tidy_and_show_trials_without_figures(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.append(_trial(0))
    folder.append(Trial(1, 0, "vm", "start", "failed", "never ready"))
    folder.write_metrics()
    with (folder.path / "metrics.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    run, end = str(MANIFEST["run"]), ["host", "0", "0", "", str(FORMAT)]
    assert tuple(rows[0]) == METRIC_COLUMNS
    assert rows[1:] == [
        [run, "0", "0", "clickme", "container", "utilisation", "ready", "0.5", "s", "ok", *end],
        [run, "0", "0", "clickme", "container", "utilisation", "memory_cgroup", "1000000.0", "bytes", "ok", *end],
        [run, "1", "0", "clickme", "vm", "start", "", "", "", "failed", *end],
    ]


def test_a_row_says_whether_its_trial_is_a_warm_up_a_repeat_or_one_of_two(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.append(Trial(3, 1, "vm", "start", "void", warmup=True, repeats=2, beside="container"))
    folder.write_metrics()
    (row,) = read_metrics(folder.path / "metrics.csv")
    assert (row["warmup"], row["repeats"], row["beside"]) == ("1", "2", "container")


def test_each_session_of_a_run_is_on_record(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.begin_session("bench --resume x")
    assert RunFolder.open(folder.path).manifest["status"] == "running", "the first was killed"
    folder.note_session(measured_s=3.0)
    folder.finish("interrupted")
    folder.begin_session("bench --resume x")
    folder.finish("finished")
    manifest = RunFolder.open(folder.path).manifest
    assert [one["status"] for one in manifest["sessions"]] == ["killed", "interrupted", "finished"]
    assert manifest["sessions"][1]["measured_s"] == 3.0 and manifest["sessions"][0]["ended"] is None
    for hostile in (5, {"a": 1}, [3, {"status": "running"}]):
        folder.note(sessions=hostile)
        folder.begin_session("again")
        assert folder.sessions[-1]["command"] == "again"


def test_samples_and_logs_stay_in_the_folder(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    name = folder.write_samples("density-0-vm", ("applications", "cgroup_bytes"), [(1, 2.5), (2, 5.0)])
    trial = Trial(0, 0, "vm", "density", "ok", samples=name)
    path = folder.samples_path(trial)
    assert path is not None
    assert path.read_text() == "applications,cgroup_bytes\n1,2.5\n2,5.0\n"
    assert folder.log_path("web-0").parent.is_dir()
    for bad in ("../evil", "", ".", "a/b"):
        with pytest.raises(ValueError, match="no name for a file"):
            folder.write_samples(bad, (), [])
        with pytest.raises(ValueError, match="no name for a file"):
            folder.log_path(bad)


def test_text_that_is_not_unicode_does_not_lose_a_trial(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.append(Trial(0, 0, "vm", "start", "failed", os.fsdecode(b"console: \xff")))
    assert folder.trials()[0].reason == "console: ?"


def test_the_manifest_can_hold_what_json_cannot(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "paths", {"run": "paths", "where": Path("/x")})
    assert json.loads((folder.path / "manifest.json").read_text())["where"] == "/x"


def test_a_folder_of_a_newer_testbed_is_refused_and_one_without_a_format_is_read(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run", {"run": "run"})
    file = folder.path / "manifest.json"
    manifest = json.loads(file.read_text())
    assert manifest["format"] == FORMAT
    for newer in (FORMAT + 1, "x", None, 0, True, 2.5):
        file.write_text(json.dumps(manifest | {"format": newer}))
        with pytest.raises(UsageError, match="format"):
            RunFolder.open(folder.path)
    file.write_text(json.dumps({"format": FORMAT + 1, "runs": ["a newer one may name it otherwise"]}))
    with pytest.raises(UsageError, match=f"has the format {FORMAT + 1}; this testbed reads up to {FORMAT}"):
        RunFolder.open(folder.path)
    del manifest["format"]
    file.write_text(json.dumps(manifest))
    assert RunFolder.open(folder.path).run_id == "run"


def test_metrics_of_a_newer_testbed_are_refused_and_those_without_a_format_are_read(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.append(_trial(0))
    folder.write_metrics()
    file = folder.path / "metrics.csv"
    current = file.read_text()
    rows = read_metrics(file)
    assert [(row["metric"], row["value"], row["format"]) for row in rows] == [
        ("ready", "0.5", str(FORMAT)),
        ("memory_cgroup", "1000000.0", str(FORMAT)),
    ]
    file.write_text("\n".join(line.rpartition(",")[0] for line in current.splitlines()) + "\n")
    assert read_metrics(file) == [row | {"format": "1"} for row in rows]
    for newer in (str(FORMAT + 1), "x", "", "0", "1.5"):
        file.write_text(current.replace(f",ok,host,0,0,,{FORMAT}\n", f",ok,host,0,0,,{newer}\n", 1))
        with pytest.raises(UsageError, match="has the format"):
            read_metrics(file)


def test_a_row_of_the_reference_machine_says_what_its_clock_counts(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    folder.append(_trial(0))
    folder.manifest["machine"] = {"kind": "reference"}
    folder.write_metrics()
    assert {row["clock"] for row in read_metrics(folder.path / "metrics.csv")} == {"instructions"}
    file = folder.path / "metrics.csv"
    file.write_text(file.read_text().replace(",clock,", ",").replace(",instructions,", ","))
    assert {row["clock"] for row in read_metrics(file)} == {"host"}, "an older table had no other"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no column block, measure"),
        (b"run,trial\nx,1\n", "has no column block, measure"),
        (b"\xff\xfe,\n", "is damaged"),
        (b'run,"' + b"x" * 200_000 + b'"\n', "is damaged: field larger"),
    ],
)
def test_what_is_no_metrics_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "metrics.csv"
    with pytest.raises(UsageError, match="No such file"):
        read_metrics(file)
    file.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_metrics(file)


def test_the_columns_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "run-folder.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \|", page.partition("## metrics.csv")[2].partition("\n## ")[0], re.MULTILINE)
    assert tuple(documented) == METRIC_COLUMNS
    assert f"The current format is {FORMAT}." in page
