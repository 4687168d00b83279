"""One cgroup for real: its meters move, and it goes away."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup, Hierarchies, Throttling, hierarchies, sum_throttling
from runtime.errors import TestbedError
from runtime.plan.cgroup import make_steps
from runtime.plan.steps import Mkdir

pytestmark = pytest.mark.root


def make(name: str) -> Cgroup:
    cgroup = Cgroup(name)
    cgroup.make_parent()
    for step in make_steps(hierarchies(), name):
        assert isinstance(step, Mkdir)
        Path(step.path).mkdir()
    return cgroup


def test_meters_see_a_process_that_joined(cgroup_parent: str) -> None:
    cgroup = make(f"{cgroup_parent}/meter")
    joins = "; ".join(f"echo $$ > {directory}/cgroup.procs" for directory in cgroup.directories())
    script = f"{joins}; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; exec sleep 60"
    process = subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE)
    try:
        assert process.stdout and process.stdout.readline() == b"done\n"
        assert cgroup.pids() == (process.pid,)
        assert cgroup.cpu_usage_ns() > 10_000_000
        assert cgroup.memory_bytes() > 0
    finally:
        cgroup.kill()
        process.wait()
        cgroup.remove()
    assert not any(directory.exists() for directory in cgroup.directories())


@pytest.mark.parametrize("name", ["", "/", ".", "//", "testbed/..", "../../user.slice"])
@pytest.mark.parametrize("operation", ["kill", "kill_at_once", "freeze", "remove"])
def test_the_whole_host_is_nobodys(name: str, operation: str, tmp_path: Path) -> None:
    """A name of a root comes from a mistake, such as that of a process that has ended: /proc has it in the root."""
    with subprocess.Popen(["sleep", "100"]) as bystander:
        (tmp_path / "cgroup.procs").write_text(f"{bystander.pid}\n")
        cgroup = Cgroup(name, Hierarchies({}, tmp_path, frozenset({"memory"})))
        with pytest.raises(TestbedError, match="may be the whole host"):
            getattr(cgroup, operation)()
        assert bystander.poll() is None and sorted(path.name for path in tmp_path.iterdir()) == ["cgroup.procs"]
        bystander.kill()


def test_what_keeps_it_from_being_removed_is_named(cgroup_parent: str) -> None:
    cgroup = make(f"{cgroup_parent}/kept")
    joins = "; ".join(f"echo $$ > {directory}/cgroup.procs" for directory in cgroup.directories())
    with subprocess.Popen(["/bin/sh", "-c", f"{joins}; echo in; exec sleep 60"], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"in\n"
        while Path(f"/proc/{process.pid}/comm").read_text() != "sleep\n":
            time.sleep(0.001)
        with pytest.raises(TestbedError, match="Device or resource busy") as caught:
            cgroup.remove(timeout_s=0.01)
        assert caught.value.hint == f"processes in it: {process.pid} (sleep)"
        cgroup.kill()
    cgroup.remove()


def test_remove_of_what_is_not_there_is_harmless(cgroup_parent: str) -> None:
    cgroup = Cgroup(f"{cgroup_parent}/never")
    started = time.monotonic()
    cgroup.kill()
    cgroup.remove()
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        ("nr_periods 20\nnr_throttled 5\nthrottled_time 1500000\n", Throttling(20, 5, 1_500_000)),
        ("nr_periods 20\nnr_throttled 5\nthrottled_time 15\nwait_sum 9\n", Throttling(20, 5, 15)),
    ],
)
def test_what_a_quota_holds_back_is_read_from_version_one(text: str, counted: Throttling, tmp_path: Path) -> None:
    cgroup = Cgroup("one", Hierarchies({"cpu": tmp_path}, None, frozenset()))
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "cpu.stat").write_text(text)
    assert cgroup.throttling() == counted


def test_what_a_quota_holds_back_is_read_from_version_two(tmp_path: Path) -> None:
    cgroup = Cgroup("one", Hierarchies({}, tmp_path, frozenset({"cpu"})))
    (tmp_path / "one").mkdir()
    file = tmp_path / "one" / "cpu.stat"
    file.write_text("usage_usec 5\nuser_usec 3\nsystem_usec 2\n")
    assert cgroup.throttling() == Throttling(), "without a quota, or without the controller"
    file.write_text(f"{file.read_text()}nr_periods 7\nnr_throttled 2\nthrottled_usec 1500\nnr_bursts 0\nburst_usec 0\n")
    before = Throttling(3, 1, 500_000)
    assert cgroup.throttling().since(before) == Throttling(4, 1, 1_000_000)
    assert cgroup.throttling().fraction == 2 / 7 and Throttling().fraction == 0
    assert sum_throttling([before, before]) == Throttling(6, 2, 1_000_000)


@pytest.mark.parametrize(
    ("v1", "file", "text", "killed"),
    [
        (True, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", 3),
        (True, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n", 0),
        (False, "memory.events", "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n", 1),
        (False, "cgroup.procs", "", 0),
    ],
)
def test_whom_the_kernel_killed_for_want_of_memory(v1: bool, file: str, text: str, killed: int, tmp_path: Path) -> None:
    two = Hierarchies({}, tmp_path, frozenset({"memory"}))
    there = Hierarchies({"memory": tmp_path}, None, frozenset()) if v1 else two
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / file).write_text(text)
    assert Cgroup("one", there).memory_kills() == killed
    assert Cgroup("one", Hierarchies({}, tmp_path, frozenset())).memory_kills() == 0, "without the controller"
