"""What is checked of the testbed's own containers on a host with cgroup v2 alone; see ``version_two_checks``."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime import container, speed
from runtime.cgroups import Cgroup, hierarchies
from runtime.container import Container
from runtime.errors import UsageError
from runtime.lease import claimed, is_held, lease
from runtime.spec import Process, Resources, Spec
from tests.waiting import until

UNIFIED = Path("/sys/fs/cgroup")
BUSYBOX = "/layers/busybox"
LEASES = Path("/run/leases")


def spec(script: str, **limits: float | int) -> Spec:
    return Spec(Process(("sh", "-c", script)), (BUSYBOX,), "check", Resources(**limits))  # type: ignore[arg-type]


@contextmanager
def started(script: str, **limits: float | int) -> Iterator[tuple[Container, Path, int]]:
    """A container of the testbed's own, its cgroup's directory, and a descriptor from which its output comes."""
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        found = container.start(spec(script, **limits), name="testbed/check", stdout=write)
    finally:
        os.close(write)
    try:
        yield found, UNIFIED / "testbed/check", read
    finally:
        found.delete()
        os.close(read)


def text(descriptor: int) -> str:
    with os.fdopen(os.dup(descriptor)) as file:
        return file.read()


def keyed(file: Path) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in file.read_text().splitlines())}


def all_controllers_are_there() -> None:
    found = hierarchies()
    assert found.mode == "v2" and found.unified == UNIFIED, found
    assert found.v2 >= {"cpu", "cpuset", "memory", "io", "pids"}, found.v2


def memory_ends_who_exceeds_it() -> None:
    script = "dd if=/dev/zero of=/dev/null bs=48M count=1; echo lived"
    with started(script, memory_bytes=32 << 20) as (found, directory, output):
        assert (directory / "memory.max").read_text() == f"{32 << 20}\n"
        assert found.wait(30) is not None
        assert keyed(directory / "memory.events")["oom_kill"] >= 1
        assert keyed(directory / "memory.events")["max"] >= 1
        assert "Killed" in (said := text(output)), said
    with started("dd if=/dev/zero of=/dev/null bs=16M count=1", memory_bytes=32 << 20) as (found, directory, _):
        assert found.wait(30) == 0 and keyed(directory / "memory.events")["oom_kill"] == 0


def tasks_end_at_their_limit() -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 9 & done; wait"
    with started(script, pids=6) as (found, directory, output):
        assert found.wait(30) is not None
        assert keyed(directory / "pids.events")["max"] >= 1
        assert "fork" in (said := text(output)), said


def processor_time_is_throttled() -> None:
    with started("while :; do :; done", cpus=0.2) as (_, directory, _):
        before, began = keyed(directory / "cpu.stat"), time.monotonic()
        time.sleep(1.5)
        after, elapsed_s = keyed(directory / "cpu.stat"), time.monotonic() - began
        assert after["nr_throttled"] > before["nr_throttled"], after
        held_back = Cgroup("testbed/check").throttling()
        assert held_back.throttled >= after["nr_throttled"] and held_back.throttled_ns > 10_000_000, held_back
        used = (after["usage_usec"] - before["usage_usec"]) / 1e6 / elapsed_s
        assert 0.05 < used < 0.4, f"{used:.2f} processors"
        assert Cgroup("testbed/check").cpu_usage_ns() >= after["usage_usec"] * 1000


def disk_numbers() -> tuple[int, int]:
    """The guest's disk: a device that exists, that root may read, and that no container gets."""
    major, minor = Path("/sys/block/vda/dev").read_text().split(":")
    return int(major), int(minor)


def a_forbidden_device_is_refused() -> None:
    major, minor = disk_numbers()
    nodes = f"mknod /full c 1 7 && mknod /kmsg c 1 11 && mknod /disk b {major} {minor}"
    script = f"{nodes} && cat /dev/null && head -c 1 /full | wc -c; head -c 1 /disk; echo 1 > /kmsg"
    with started(script) as (found, _, output):
        assert found.wait(30) is not None
        said = text(output).splitlines()
    assert said[0] == "1", said
    assert len(said) == 3 and all("Operation not permitted" in line for line in said[1:]), said


def frozen_means_standing_still() -> None:
    with started("while :; do :; done") as (found, directory, _):
        cgroup = Cgroup("testbed/check")
        cgroup.freeze()
        assert keyed(directory / "cgroup.events")["frozen"] == 1 and cgroup.frozen()
        used = cgroup.cpu_usage_ns()
        time.sleep(0.3)
        assert cgroup.cpu_usage_ns() == used
        cgroup.freeze(False)
        until(lambda: cgroup.cpu_usage_ns() > used, 10)
        cgroup.freeze()
        found.send_signal(signal.SIGKILL)
        assert found.wait(10) == 128 + signal.SIGKILL, "a frozen process dies at once on v2"


def all_die_however_fast_they_fork() -> None:
    storm = "while :; do (while :; do (true) & done) & done"
    with started(storm, pids=200) as (_, directory, _):
        until(lambda: int((directory / "pids.current").read_text()) > 50, 10)
        Cgroup("testbed/check").kill()
        assert (directory / "cgroup.procs").read_text() == ""
        assert keyed(directory / "cgroup.events")["populated"] == 0


def it_sees_its_own_cgroup_as_the_root() -> None:
    with started("cat /proc/self/cgroup") as (_, _, output):
        assert text(output) == "0::/\n"


def leases_that_begin_and_end_beside_each_other_stay_whole() -> None:
    """And what another has below the same cgroup is its own."""
    other = UNIFIED / "testbed/other"
    other.mkdir(parents=True)
    sleeper = subprocess.Popen(["sleep", "600"])
    (other / "cgroup.procs").write_text(str(sleeper.pid))
    try:
        children = [_lease_again_and_again(f"run-{number}") for number in range(3)]
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
        try:
            with lease("other", LEASES):
                raise AssertionError("somebody else's cgroup was taken over")
        except UsageError:
            pass
        assert (other / "cgroup.procs").read_text().split() == [str(sleeper.pid)]
    finally:
        sleeper.kill()
        sleeper.wait()
        other.rmdir()


def _lease_again_and_again(name: str) -> int:
    """The pid of a child that ends with 0 when every lease was whole, and claimed by nobody, while it was held."""
    if child := os.fork():
        return child
    broken = 1
    try:
        for _ in range(40):
            with lease(name, LEASES) as scratch, claimed(name, LEASES) as taken:
                (scratch / "file").write_text("x")
                assert taken is None and is_held(name, LEASES)
                assert "memory" in (UNIFIED / "testbed" / name / "cgroup.subtree_control").read_text()
        broken = 0
    finally:
        os._exit(broken)


def an_emulated_host_has_longer_limits_of_time() -> None:
    """This guest is one: its processor is QEMU's translator (measured: 12 times slower than the host of the tests)."""
    found = speed.measure()
    assert found.round_ns > 0 and 1.5 < found.factor <= speed.MOST, found
    speed.measured.cache_clear()
    assert speed.scale(10.0) > 15


CHECKS = (
    an_emulated_host_has_longer_limits_of_time,
    leases_that_begin_and_end_beside_each_other_stay_whole,
    all_controllers_are_there,
    memory_ends_who_exceeds_it,
    tasks_end_at_their_limit,
    processor_time_is_throttled,
    a_forbidden_device_is_refused,
    frozen_means_standing_still,
    all_die_however_fast_they_fork,
    it_sees_its_own_cgroup_as_the_root,
)
