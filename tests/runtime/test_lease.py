"""A lease tells what a living process has from what a dead one left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup
from runtime.errors import PrerequisiteError, TestbedError, UsageError
from runtime.lease import CGROUP_ROOT, is_dead, is_held, lease, remove_shared

pytestmark = pytest.mark.root


def test_it_is_held_while_inside_and_gone_afterwards(tmp_path: Path, run_name: str) -> None:
    with lease(run_name, tmp_path) as scratch:
        assert scratch.is_dir() and is_held(run_name, tmp_path)
    assert not scratch.exists() and not is_held(run_name, tmp_path)


@pytest.mark.parametrize("error", [RuntimeError, FileNotFoundError])
def test_it_goes_with_an_error(tmp_path: Path, run_name: str, error: type[Exception]) -> None:
    with pytest.raises(error), lease(run_name, tmp_path) as scratch:
        (scratch / "file").write_text("x")
        raise error
    assert not tmp_path.exists()


class Killed(BaseException):
    """What comes in between."""


@pytest.mark.parametrize("error", [TestbedError("busy"), Killed()])
def test_it_stays_while_its_cgroup_does(
    tmp_path: Path, run_name: str, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Without it, nobody would know whose the cgroup is."""

    def fail(_cgroup: Cgroup) -> None:
        raise error

    with pytest.raises(type(error)), lease(run_name, tmp_path) as scratch:
        monkeypatch.setattr(Cgroup, "remove", fail)
    assert is_dead(run_name, tmp_path) and scratch.is_dir()
    monkeypatch.undo()
    cgroup = Cgroup(f"{CGROUP_ROOT}/{run_name}")
    assert cgroup.exists()
    cgroup.remove()


def test_a_taken_name_is_refused(tmp_path: Path, run_name: str) -> None:
    with lease(run_name, tmp_path), pytest.raises(UsageError, match="taken"), lease(run_name, tmp_path):
        raise AssertionError("entered twice")
    assert not tmp_path.exists()


def test_a_directory_that_cannot_be_made(tmp_path: Path, run_name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((PrerequisiteError, UsageError)), lease(run_name, tmp_path / "file"):
        raise AssertionError("entered")


def test_a_killed_owner_holds_nothing(tmp_path: Path, run_name: str) -> None:
    script = (
        "import time; from pathlib import Path; from runtime.lease import lease\n"
        f"with lease({run_name!r}, Path({str(tmp_path)!r})): print('in', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert owner.stdout and owner.stdout.readline() == b"in\n"
    assert is_held(run_name, tmp_path)
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    assert not is_held(run_name, tmp_path)
    assert (tmp_path / run_name).is_dir()
    Cgroup(f"{CGROUP_ROOT}/{run_name}").remove()
    remove_shared(tmp_path)
