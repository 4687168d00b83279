"""What a killed run leaves is found and removed; what a living run or another owner has is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup, hierarchies
from runtime.errors import UsageError
from runtime.lease import STATE_ROOT, lease
from testbed import leftovers
from testbed.host_settings import RECORD
from testbed.leftovers import Leftover

pytestmark = pytest.mark.root

OWNER = """
import sys, time
from runtime import container
from runtime.lease import cgroup_name, lease
from runtime.spec import Process, Spec
name, layer = sys.argv[1:]
with lease(name) as scratch:
    (scratch / "file").write_text("x")
    spec = Spec(Process(args=("sleep", "600")), (layer,), "left")
    started = container.start(spec, name=cgroup_name(name, "one"), stdout=2)
    print(started.process.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def owner(busybox_layer: Path, run_name: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process with a lease and a container in it, and the container's pid."""
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, run_name, str(busybox_layer)], cwd=root, stdout=subprocess.PIPE
    )
    assert process.stdout
    yield process, int(process.stdout.readline())
    process.kill()
    process.wait()
    leftovers.remove(of_run(run_name))


def is_running(pid: int) -> bool:
    """Dead is enough: who reaps an orphan, and when, is the host's affair."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def of_run(run_name: str) -> tuple[Leftover, ...]:
    return tuple(leftover for leftover in leftovers.find() if leftover.run == run_name)


def test_a_living_run_is_not_seen(owner: tuple[subprocess.Popen[bytes], int], run_name: str) -> None:
    assert of_run(run_name) == ()


def test_a_killed_run_is_found_and_removed(owner: tuple[subprocess.Popen[bytes], int], run_name: str) -> None:
    process, pid = owner
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    found = of_run(run_name)
    assert [leftover.kind for leftover in found] == ["process", "cgroup", "cgroup", "directory"]
    assert str(found[0]).split()[1] == str(pid)
    leftovers.remove(found)
    assert of_run(run_name) == ()
    assert not is_running(pid)
    assert not (STATE_ROOT / run_name).exists()
    assert not any(path.exists() for path in Cgroup(f"testbed/{run_name}").directories())


def test_a_killed_runs_settings_are_put_back(
    owner: tuple[subprocess.Popen[bytes], int], run_name: str, tmp_path: Path
) -> None:
    process, _ = owner
    setting = tmp_path / "setting"
    setting.write_text("1")
    (STATE_ROOT / run_name / RECORD).write_text(json.dumps({str(setting): "0"}))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    found = of_run(run_name)
    assert f"setting   {setting} (was 0)" in [str(leftover) for leftover in found]
    leftovers.remove(found)
    assert setting.read_text() == "0"
    assert of_run(run_name) == ()


def test_a_cgroup_of_someone_else_is_left_alone(run_name: str) -> None:
    directory = hierarchies().used[0] / run_name
    directory.mkdir()
    try:
        assert not [leftover for leftover in leftovers.find() if run_name in leftover.what]
    finally:
        directory.rmdir()


def test_the_store_is_removed_with_what_it_holds_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_name: str
) -> None:
    home, state = tmp_path / "home", tmp_path / "state"
    monkeypatch.setenv("TESTBED_HOME", str(home))
    monkeypatch.setattr(leftovers, "STATE_ROOT", state)
    (home / "images" / "layers").mkdir(parents=True)
    (home / "mine").write_text("not the testbed's")
    with lease(run_name, state), pytest.raises(UsageError, match="using the store"):
        leftovers.remove_store()
    assert leftovers.remove_store() == home
    assert [path.name for path in home.iterdir()] == ["mine"]
