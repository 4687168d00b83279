"""A bundle is taken whole or refused with the part that is wrong."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from msgspec.structs import replace

from runtime.errors import UsageError
from testbed.ladder.model import FILE
from testbed.ladder.store import encode_results, write_ladder
from testbed.machine import emulator
from testbed.machine.bundle import FORMAT, Description, _write, bundle, name_results, opened
from testbed.machine.job import Job
from testbed.results import TRIALS, RunFolder
from tests.reports.ladder.records import make_ladder
from tests.testbed.machine.trials import make_trial

JOB = Job("x", ("container",), ("start",), 1, True, 1, 2)
TRIAL = make_trial(1, 2.0)
PARTS = {emulator.KERNEL: b"kernel" * 1000, emulator.INITRD: b"initrd" * 1000, emulator.DISK: bytes(1 << 20)}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TESTBED_HOME", str(tmp_path / "store"))
    return tmp_path / "store"


def written(
    folder: Path,
    changed: Mapping[str, bytes] = MappingProxyType({}),
    number_of_format: int = FORMAT,
    job: Job = JOB,
    results: bytes = TRIAL,
) -> Path:
    """A bundle as ``bundle`` writes it; the parts ``changed`` are not those that it names."""
    files = folder / "files"
    files.mkdir()
    for name, data in PARTS.items():
        (files / name).write_bytes(changed.get(name, data))
    inputs = {name: sha256(data) for name, data in PARTS.items()}
    digests = {name_results(job): sha256(results)}
    description = Description(number_of_format, job, "run", "QEMU 1", ("a",), 1 << 20, inputs, digests)
    _write(folder / "bundle", description, changed.get("results", results), files)
    return folder / "bundle"


def test_a_bundle_opens_as_it_was_written(tmp_path: Path, store: Path) -> None:
    with opened(written(tmp_path)) as (description, trials, folder):
        assert description.job == JOB and trials == TRIAL
        for name, data in PARTS.items():
            assert (folder / "parts" / emulator.FOLDER.name / name).read_bytes() == data
    assert not list((store / "guest").iterdir())


def test_the_same_inputs_give_the_same_file(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    assert written(tmp_path / "one").read_bytes() == written(tmp_path / "other").read_bytes()


@pytest.mark.parametrize("part", PARTS)
def test_a_changed_part_is_named_with_its_digest(part: str, tmp_path: Path, store: Path) -> None:
    path = written(tmp_path, {part: b"changed"})
    with pytest.raises(UsageError, match=f"{part} has the sha256 {sha256(b'changed')}"), opened(path):
        pass
    assert not list((store / "guest").iterdir())


def test_changed_trials_are_named(tmp_path: Path, store: Path) -> None:
    with (
        pytest.raises(UsageError, match=f"{re.escape(TRIALS)} has the sha256"),
        opened(written(tmp_path, {"results": make_trial(1, 3.0)})),
    ):
        pass


@pytest.mark.parametrize("kept", [0, 10, 300, 1500])
def test_a_truncated_bundle_is_refused(kept: int, tmp_path: Path, store: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UsageError, match="no whole bundle"), opened(path):
        pass
    assert not list((store / "guest").iterdir())


def test_what_is_no_bundle_is_refused(tmp_path: Path, store: Path) -> None:
    (tmp_path / "file").write_bytes(b"something else" * 1000)
    for path in (tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(UsageError, match="no whole bundle"), opened(path):
            pass


def test_a_newer_format_is_refused(tmp_path: Path, store: Path) -> None:
    with (
        pytest.raises(UsageError, match="this testbed reads up to"),
        opened(written(tmp_path, number_of_format=FORMAT + 1)),
    ):
        pass


def test_a_run_on_this_host_has_no_bundle(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "run", {"run": "run", "scenario": "clickme"})
    with pytest.raises(UsageError, match="was not measured in the reference machine"):
        bundle(run.path, tmp_path, tmp_path / "bundle", print)
    assert not (tmp_path / "bundle").exists()


def test_a_run_of_the_ladder_on_this_host_has_none_either_and_says_which_has(tmp_path: Path) -> None:
    write_ladder(tmp_path, make_ladder())
    with pytest.raises(UsageError, match="was not measured in the reference machine") as caught:
        bundle(tmp_path, tmp_path, tmp_path / "bundle", print)
    assert "ladder --machine reference" in caught.value.hint


def test_a_bundle_of_the_ladder_has_its_record(tmp_path: Path, store: Path) -> None:
    job, results = replace(JOB, rungs=("process",)), encode_results(make_ladder())
    with opened(written(tmp_path, job=job, results=results)) as (description, expected, _):
        assert description.results.keys() == {FILE} and expected == results
