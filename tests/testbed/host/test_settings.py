"""Settings of the host come back: after an exception, after a kill, and only by the run that changed them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError, TestbedError, UsageError
from testbed.host import settings as host_settings
from testbed.host.settings import RECORD, change_settings, read_record, restore_settings


@pytest.fixture
def settings(tmp_path: Path) -> dict[Path, str]:
    """Two settings to change, which are 0 and 100; files stand in for the kernel's, which all runs share."""
    (tmp_path / "run").write_text("0\n")
    (tmp_path / "pages").write_text("100\n")
    return {tmp_path / "pages": "1000", tmp_path / "run": "1"}


def values(settings: dict[Path, str]) -> list[str]:
    return [path.read_text().strip() for path in settings]


def test_they_are_changed_within_and_back_after_an_exception(settings: dict[Path, str], tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), change_settings(settings, tmp_path):
        assert values(settings) == ["1000", "1"]
        assert read_record(tmp_path) == dict(zip(settings, ["100", "0"], strict=True))
        raise ZeroDivisionError
    assert values(settings) == ["100", "0"]
    assert not (tmp_path / RECORD).exists()


def test_another_run_is_refused_and_changes_nothing(settings: dict[Path, str], tmp_path: Path) -> None:
    (first, second) = settings
    with change_settings({first: "7"}, tmp_path):
        with (
            pytest.raises(UsageError, match="another run"),
            change_settings({second: "8", first: "9"}, tmp_path / "other"),
        ):
            pass
        assert values(settings) == ["7", "0"]
    with change_settings({first: "9"}, tmp_path):
        assert values(settings) == ["9", "0"]


def test_two_changes_of_one_run_are_noted_together(settings: dict[Path, str], tmp_path: Path) -> None:
    (first, second) = settings
    with change_settings({first: "7"}, tmp_path):
        with change_settings({second: "8"}, tmp_path):
            assert read_record(tmp_path) == {first: "100", second: "0"}
        assert read_record(tmp_path) == {first: "100"}
    assert read_record(tmp_path) == {}


def test_what_cannot_be_changed_is_refused_politely(tmp_path: Path) -> None:
    missing = tmp_path / "no" / "run"
    with pytest.raises(PrerequisiteError, match="No such file"), change_settings({missing: "1"}, tmp_path):
        pass


def test_a_value_that_the_kernel_refuses_leaves_all_as_it_was(
    settings: dict[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = host_settings._write

    def refuse(path: Path, value: str) -> None:
        if value == "1":
            raise PrerequisiteError(f"write {value} to {path}: Invalid argument")
        write(path, value)

    monkeypatch.setattr(host_settings, "_write", refuse)
    with pytest.raises(PrerequisiteError, match="Invalid"), change_settings(settings, tmp_path):
        pass
    assert values(settings) == ["100", "0"]
    assert read_record(tmp_path) == {}


CHANGE = """
import sys, time
from pathlib import Path
from testbed.host.settings import change_settings
setting, lease = map(Path, sys.argv[1:])
with change_settings({setting: "1"}, lease):
    print("changed", flush=True)
    time.sleep(600)
"""


def test_a_killed_runs_settings_are_put_back_from_its_note(settings: dict[Path, str], tmp_path: Path) -> None:
    setting = tmp_path / "run"
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", CHANGE, str(setting), str(tmp_path)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"changed\n"
        os.kill(process.pid, signal.SIGKILL)
    assert setting.read_text() == "1"
    restore_settings(tmp_path)
    assert setting.read_text() == "0"
    setting.unlink()
    setting.mkdir()
    with pytest.raises(TestbedError, match="write 0 to"):
        restore_settings(tmp_path)
