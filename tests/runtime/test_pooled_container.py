"""Pooled containers for real: all is there but the program, what waits is charged, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime import container
from runtime.cgroups import Cgroup
from runtime.container import PooledContainer
from runtime.errors import UsageError, WorkloadError
from runtime.launcher import StepError
from runtime.spec import Process, Resources, Spec
from tests.owned import mounts_of
from tests.waiting import until

pytestmark = pytest.mark.root


def shell(layer: Path, script: str, no_new_privileges: bool = True) -> Spec:
    process = Process(args=("sh", "-c", script), no_new_privileges=no_new_privileges)
    return Spec(process, (str(layer),), "boxed", Resources(64 << 20, 1.0, 32))


@contextmanager
def pooled(spec: Spec, name: str, log: Path) -> Iterator[PooledContainer]:
    with log.open("wb") as file:
        waiting = container.pool(spec, name=name, stdout=file.fileno())
    try:
        yield waiting
    finally:
        waiting.delete()


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """No process and no mount of it is left."""
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert mounts_of(tmp_path) == []


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_all_is_there_before_the_command_is(
    no_new_privileges: bool, busybox_layer: Path, cgroup_parent: str, tmp_path: Path
) -> None:
    log, spec = tmp_path / "log", shell(busybox_layer, "echo $$; hostname; exec sleep 100", no_new_privileges)
    with pooled(spec, f"{cgroup_parent}/a", log) as waiting:
        status = Path(f"/proc/{waiting.pid}/status").read_text()
        assert f"NoNewPrivs:\t{int(no_new_privileges)}" in status and "Seccomp:\t2" in status
        assert Path(f"/proc/{waiting.pid}/root/bin/busybox").exists()
        for kind in ("pid", "mnt", "uts", "ipc", "net", "cgroup"):
            assert os.readlink(f"/proc/{waiting.pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
        assert all(str(waiting.pid) in (one / "cgroup.procs").read_text() for one in waiting.cgroup.directories())
        assert log.read_bytes() == b"", "it has executed nothing"
        started = waiting.start()
        try:
            assert started.process.pid == waiting.pid and started.requested_ns <= started.process.executed_ns
            assert waiting.requested_ns <= started.process.cloned_ns <= waiting.pooled_ns <= started.requested_ns
            until(lambda: log.read_bytes() == b"1\nboxed\n")
        finally:
            started.delete()
    assert not waiting.cgroup.exists()


def test_what_waits_is_charged(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    with pooled(shell(busybox_layer, "true"), f"{cgroup_parent}/a", tmp_path / "log") as waiting:
        assert waiting.cgroup.memory_bytes() > 64 << 10


def test_it_serves_once(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    with pooled(shell(busybox_layer, "exit 7"), f"{cgroup_parent}/a", tmp_path / "log") as waiting:
        started = waiting.start()
        assert started.wait() == 7
        with pytest.raises(UsageError, match="started before"):
            waiting.start()
        waiting.delete()
        assert started.cgroup.exists(), "it belongs to the started container now"
        started.delete()


def test_one_that_died_while_it_waited_says_so(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    with pooled(shell(busybox_layer, "true"), f"{cgroup_parent}/a", tmp_path / "log") as waiting:
        os.kill(waiting.pid, signal.SIGKILL)
        os.waitid(os.P_PID, waiting.pid, os.WEXITED | os.WNOWAIT)
        assert waiting.exit_status() == 128 + signal.SIGKILL
        with pytest.raises(WorkloadError, match=r"it ended while it waited in the pool \(exit status 137\)"):
            waiting.start()
        assert not waiting.cgroup.exists()


def test_a_command_that_is_not_there_fails_before_it_waits(
    busybox_layer: Path, cgroup_parent: str, tmp_path: Path
) -> None:
    spec = Spec(Process(args=("nowhere",)), (str(busybox_layer),), "boxed", Resources(64 << 20, 1.0, 32))
    with pytest.raises(StepError, match="nowhere"):
        container.pool(spec, name=f"{cgroup_parent}/a", stdout=1)
    assert not Cgroup(f"{cgroup_parent}/a").exists()


def test_a_command_that_cannot_be_executed_leaves_nothing(
    busybox_layer: Path, cgroup_parent: str, tmp_path: Path
) -> None:
    (busybox_layer / "bin" / "broken").write_text("no program")
    (busybox_layer / "bin" / "broken").chmod(0o755)
    spec = Spec(Process(args=("broken",)), (str(busybox_layer),), "boxed", Resources(64 << 20, 1.0, 32))
    waiting = container.pool(spec, name=f"{cgroup_parent}/a", stdout=1)
    with pytest.raises(StepError, match="broken"):
        waiting.start()
    assert not waiting.cgroup.exists()


def test_it_ends_with_the_program_that_made_it(busybox_layer: Path, cgroup_parent: str) -> None:
    """Killed, so that it can clean nothing up: nobody waits for a word that will not come."""
    program = f"""
import os, signal
from runtime import container
from runtime.spec import Process, Resources, Spec
spec = Spec(Process(args=("true",)), ({str(busybox_layer)!r},), "boxed", Resources(64 << 20, 1.0, 32))
waiting = container.pool(spec, name={f"{cgroup_parent}/a"!r}, stdout=2)
print(waiting.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert done.returncode == -signal.SIGKILL
    cgroup = Cgroup(f"{cgroup_parent}/a")
    until(lambda: cgroup.pids() == ())
    cgroup.remove()
    assert int(done.stdout) > 0
