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

from runtime.cgroups import Cgroup
from runtime.errors import UsageError
from runtime.lease import STATE_ROOT, lease
from testbed import leftovers
from testbed.host.settings import RECORD
from testbed.leftovers import Leftover
from tests.runtime.command_line import make_runtime

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
    remains = of_run(run_name)
    assert [leftover.kind for leftover in remains] == ["process", "cgroup", "cgroup", "directory"]
    assert str(remains[0]).split()[1] == str(pid)
    leftovers.remove(remains)
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
    remains = of_run(run_name)
    assert f"setting   {setting} (was 0)" in [str(leftover) for leftover in remains]
    leftovers.remove(remains)
    assert setting.read_text() == "0"
    assert of_run(run_name) == ()


@pytest.fixture
def foreign(run_name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Somebody else's process in somebody else's cgroup, which has our name above it."""
    cgroup = Cgroup(f"testbed/{run_name}")
    cgroup.make()
    process = subprocess.Popen(["sleep", "600"])
    for directory in cgroup.directories():
        (directory / "cgroup.procs").write_text(str(process.pid))
    yield process
    process.kill()
    process.wait()
    cgroup.remove()


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for leases apart from the host's, so that other tests' runs are not cleaned up meanwhile."""
    monkeypatch.setattr(leftovers, "STATE_ROOT", tmp_path / "leases")
    return tmp_path / "leases"


def clean() -> None:
    """`./invoke clean`, but for the store."""
    leftovers.remove(tuple(left for left in leftovers.find() if "/.partial-" not in left.what))


@pytest.mark.usefixtures("state")
def test_a_cgroup_of_someone_else_below_ours_is_left_alone(foreign: subprocess.Popen[bytes], run_name: str) -> None:
    assert not [leftover for leftover in leftovers.find() if run_name in leftover.what or leftover.what == "testbed"]
    clean()
    assert foreign.poll() is None
    assert Cgroup(f"testbed/{run_name}").pids() == (foreign.pid,)
    with pytest.raises(UsageError, match="no lease of ours"), lease(run_name):
        raise AssertionError("a lease took over somebody else's cgroup")
    assert Cgroup(f"testbed/{run_name}").pids() == (foreign.pid,) and not (STATE_ROOT / run_name).exists()


@pytest.mark.usefixtures("state")
def test_a_process_in_the_cgroup_above_all_leases_is_left_alone(foreign: subprocess.Popen[bytes]) -> None:
    for directory in Cgroup("testbed").directories():
        (directory / "cgroup.procs").write_text(str(foreign.pid))
    clean()
    assert foreign.poll() is None


@pytest.mark.usefixtures("state")
def test_a_container_of_the_command_line_below_our_cgroup_is_left_alone(
    busybox_layer: Path, run_name: str, tmp_path: Path
) -> None:
    runtime = make_runtime(tmp_path, busybox_layer, f"testbed/{run_name}")
    runtime("create", "container")
    try:
        clean()
        assert runtime.state("container")["status"] == "created"
    finally:
        runtime("delete", "--force", "container")


def test_a_directory_that_is_no_lease_is_left_alone(state: Path) -> None:
    (state / "mine").mkdir(parents=True)
    (state / "mine" / "file").write_text("x")
    clean()
    assert (state / "mine" / "file").exists()


def test_a_lease_whose_maker_died_before_it_was_one_is_removed(state: Path) -> None:
    living, dead = state / f".partial-one-{os.getpid()}", state / ".partial-two-4194304"
    for path in (living, dead):
        path.mkdir(parents=True)
    assert [left.what for left in leftovers.find() if str(state) in left.what] == [str(dead)]
    leftovers.remove((Leftover("partial", str(dead), ""),))
    assert living.exists() and not dead.exists()


BEGINNER = """
import os, sys, time
from pathlib import Path
from runtime.cgroups import Cgroup
from runtime.lease import CGROUP_ROOT, is_held, lease
name, root, until = sys.argv[1], Path(sys.argv[2]), time.monotonic() + float(sys.argv[3])
begun = broken = 0
while time.monotonic() < until:
    begun += 1
    try:
        with lease(name, root) as scratch:
            (scratch / "file").write_text("x")
            os.sched_yield()
            whole = is_held(name, root) and (scratch / "file").exists() and Cgroup(f"{CGROUP_ROOT}/{name}").exists()
            broken += not whole
    except Exception as error:
        print(error, file=sys.stderr)
        broken += 1
print(begun, broken)
"""


def test_leases_that_begin_and_end_beside_clean_stay_whole(run_name: str, state: Path) -> None:
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", BEGINNER, f"{run_name}-{number}", str(state), "3"],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
        )
        for number in range(3)
    ]
    while any(run.poll() is None for run in runs):
        clean()
    counts = [tuple(map(int, run.communicate()[0].split())) for run in runs]
    assert all(begun > 20 and broken == 0 for begun, broken in counts), counts
    assert not state.exists()


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
