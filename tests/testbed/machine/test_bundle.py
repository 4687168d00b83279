"""A bundle is taken whole or refused with the part that is wrong, and two runs are compared to the first difference."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec
import pytest

from runtime.errors import UsageError
from testbed.machine import emulator
from testbed.machine.bundle import FORMAT, Description, _write, bundle, compare, opened
from testbed.machine.job import Job
from testbed.results import TRIALS, Metric, RunFolder, Trial

JOB = Job("x", ("container",), ("start",), 1, True, 1, 2)
PARTS = {emulator.KERNEL: b"kernel" * 1000, emulator.INITRD: b"initrd" * 1000, emulator.DISK: bytes(1 << 20)}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def trial(number: int, value: float, outcome: str = "ok") -> bytes:
    fields = {
        "trial": number,
        "block": 1,
        "platform": "vm",
        "measure": "start",
        "outcome": outcome,
        "metrics": [Metric("ready", value, "s")],
    }
    return msgspec.json.encode(msgspec.convert(msgspec.to_builtins(fields), Trial)) + b"\n"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TESTBED_HOME", str(tmp_path / "store"))
    return tmp_path / "store"


def written(folder: Path, changed: Mapping[str, bytes] = MappingProxyType({}), number_of_format: int = FORMAT) -> Path:
    """A bundle as ``bundle`` writes it; the parts ``changed`` are not those that it names."""
    files = folder / "files"
    files.mkdir()
    for name, data in PARTS.items():
        (files / name).write_bytes(changed.get(name, data))
    trials = folder / "trials"
    trials.write_bytes(changed.get("trials", trial(1, 2.0)))
    inputs = {name: sha256(data) for name, data in PARTS.items()}
    results = {TRIALS: sha256(trial(1, 2.0))}
    description = Description(number_of_format, JOB, "run", "QEMU 1", ("a",), 1 << 20, inputs, results)
    _write(folder / "bundle", description, trials, files)
    return folder / "bundle"


def test_a_bundle_opens_as_it_was_written(tmp_path: Path, store: Path) -> None:
    with opened(written(tmp_path)) as (description, trials, folder):
        assert description.job == JOB and trials == trial(1, 2.0)
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
        opened(written(tmp_path, {"trials": trial(1, 3.0)})),
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


def test_identical_trials_do_not_differ() -> None:
    assert compare(trial(1, 2.0), trial(1, 2.0)) == ()


def test_the_first_trial_that_differs_is_told_for_each_metric() -> None:
    before = trial(1, 2.0) + trial(2, 2.0) + trial(3, 2.0)
    after = trial(1, 2.0) + trial(2, 2.5) + trial(3, 2.6)
    (one,) = compare(before, after)
    assert str(one) == "ready differs from trial 2 on: 2.5 instead of 2.0"


def test_a_missing_trial_and_another_outcome_are_differences() -> None:
    found = {one.metric: one.trial for one in compare(trial(1, 2.0) + trial(2, 2.0), trial(1, 2.0, "failed"))}
    assert found == {"outcome": 1, "trials": 1}


def test_a_run_on_this_host_has_no_bundle(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "run", {"scenario": "clickme"})
    with pytest.raises(UsageError, match="was not measured in the reference machine"):
        bundle(run, tmp_path, tmp_path / "bundle", print)
    assert not (tmp_path / "bundle").exists()
