"""What is checked on a host with cgroup v2 alone. It runs inside a guest, as PID 1, not under pytest.

Each function is a check; one that fails raises. The console gets a line for each, which
tests/runtime/test_version_two_guest.py reads.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime import container
from runtime.cgroups import Cgroup, hierarchies
from runtime.container import Container
from runtime.spec import Process, Resources, Spec

UNIFIED = Path("/sys/fs/cgroup")
BUSYBOX = "/layers/busybox"
BUNDLE = Path("/tmp/bundle")
OCI_CGROUP = UNIFIED / "testbed-runtime"


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


def until(true: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


# --- the library -----------------------------------------------------------------------------------------------


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
        until(lambda: cgroup.cpu_usage_ns() > used)
        cgroup.freeze()
        found.send_signal(signal.SIGKILL)
        assert found.wait(10) == 128 + signal.SIGKILL, "a frozen process dies at once on v2"


def all_die_however_fast_they_fork() -> None:
    storm = "while :; do (while :; do (true) & done) & done"
    with started(storm, pids=200) as (_, directory, _):
        until(lambda: int((directory / "pids.current").read_text()) > 50)
        Cgroup("testbed/check").kill()
        assert (directory / "cgroup.procs").read_text() == ""
        assert keyed(directory / "cgroup.events")["populated"] == 0


def it_sees_its_own_cgroup_as_the_root() -> None:
    with started("cat /proc/self/cgroup") as (_, _, output):
        assert text(output) == "0::/\n"


# --- the command line ------------------------------------------------------------------------------------------


def bundle(script: str, **resources: object) -> None:
    from runtime.config.decode import encode
    from runtime.config.default import default_config

    config = encode(default_config())
    config["root"]["readonly"] = False
    config["process"].update(args=["sh", "-c", script], terminal=False)
    config["linux"]["resources"].update(resources)
    (BUNDLE / "config.json").write_text(json.dumps(config))


def oci(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A command in a process forked from this one, which has the runtime imported: seconds, under emulation."""
    with tempfile.TemporaryFile("w+") as output:
        pid = os.fork()
        if pid == 0:
            status = 99
            try:
                os.chdir(BUNDLE)
                for descriptor in (1, 2):
                    os.dup2(output.fileno(), descriptor)
                from runtime.cli import main

                status = main(arguments)
                sys.stdout.flush()
                sys.stderr.flush()
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        output.seek(0)
        said = output.read()
    assert not check or status == 0, f"{arguments}: {status}: {said}"
    return subprocess.CompletedProcess(arguments, status, said, "")


def state() -> str:
    word: str = json.loads(oci("state", "a").stdout)["status"]
    return word


def run_gives_output_and_status_twice() -> None:
    """By itself, as a user calls it: the second run is the launcher's alone."""
    bundle("cat /proc/self/cgroup; exit 7")
    times_s = []
    for _ in range(2):
        began = time.monotonic()
        done = subprocess.run(["testbed-runtime", "run", "a"], cwd=BUNDLE, capture_output=True, text=True)
        times_s.append(time.monotonic() - began)
        assert (done.returncode, done.stdout, done.stderr) == (7, "0::/\n", ""), done
    assert times_s[1] < times_s[0] / 3, times_s
    assert not OCI_CGROUP.exists()


def limits_of_a_configuration_are_set() -> None:
    wanted = {
        "memory": {"limit": 64 << 20, "reservation": 16 << 20},
        "cpu": {"shares": 2, "quota": 30_000, "period": 60_000, "cpus": "0"},
        "pids": {"limit": 33},
        "unified": {"memory.high": str(48 << 20), "cpu.max.burst": "10000"},
    }
    bundle("sleep 100", **wanted)
    oci("create", "a")
    directory = OCI_CGROUP / "a"
    files = {
        "memory.max": str(64 << 20),
        "memory.low": str(16 << 20),
        "memory.high": str(48 << 20),
        "cpu.max": "30000 60000",
        "cpu.weight": "1",
        "cpu.max.burst": "10000",
        "cpuset.cpus": "0",
        "cpuset.cpus.effective": "0",
        "pids.max": "33",
    }
    found = {name: (directory / name).read_text().strip() for name in files}
    oci("delete", "--force", "a")
    assert found == files


def a_life_by_the_command_line() -> None:
    bundle("i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.02; done")
    oci("create", "a")
    directory = OCI_CGROUP / "a"
    assert state() == "created" and json.loads(oci("list", "--format", "json").stdout)[0]["id"] == "a"
    oci("start", "a")
    assert state() == "running"
    assert oci("exec", "a", "cat", "/proc/self/cgroup").stdout == "0::/\n"
    oci("pause", "a")
    assert state() == "paused" and keyed(directory / "cgroup.events")["frozen"] == 1
    oci("resume", "a")
    assert state() == "running" and keyed(directory / "cgroup.events")["frozen"] == 0
    oci("update", "--memory", str(40 << 20), "--pids-limit", "21", "--cpu-quota", "50000", "--cpu-share", "512", "a")
    read = {
        name: (directory / name).read_text().strip() for name in ("memory.max", "pids.max", "cpu.max", "cpu.weight")
    }
    assert read == {"memory.max": str(40 << 20), "pids.max": "21", "cpu.max": "50000 100000", "cpu.weight": "20"}, read
    stats = json.loads(oci("events", "--stats", "a").stdout)["data"]
    assert stats["memory"]["usage"]["limit"] == 40 << 20 and 0 < stats["memory"]["usage"]["usage"] < 40 << 20, stats
    assert stats["pids"]["limit"] == 21 and stats["pids"]["current"] >= 1, stats
    assert stats["cpu"]["usage"]["total"] > 0 and stats["cpu"]["throttling"]["periods"] >= 0, stats
    assert "ioServiceBytesRecursive" in stats["blkio"], stats
    pids = json.loads(oci("ps", "--format", "json", "a").stdout)
    assert pids and {int(pid) for pid in (directory / "cgroup.procs").read_text().split()} & set(pids)
    oci("kill", "a", "KILL")
    until(lambda: state() == "stopped")
    oci("delete", "a")
    assert not OCI_CGROUP.exists()
    assert "does not exist" in oci("state", "a", check=False).stdout


def kill_all_reaches_every_process() -> None:
    bundle("for i in 1 2 3 4; do (setsid sleep 100 &); done; sleep 100")
    oci("run", "--detach", "a")
    directory = OCI_CGROUP / "a"
    until(lambda: len((directory / "cgroup.procs").read_text().split()) == 5)
    oci("kill", "--all", "a", "KILL")
    until(lambda: keyed(directory / "cgroup.events")["populated"] == 0)
    oci("delete", "a")
    assert not OCI_CGROUP.exists()


def a_paused_container_is_deleted() -> None:
    bundle("sleep 100")
    oci("run", "--detach", "a")
    oci("pause", "a")
    oci("delete", "--force", "a")
    assert not OCI_CGROUP.exists()


def out_of_memory_is_counted() -> None:
    bundle("dd if=/dev/zero of=/dev/null bs=48M count=1; sleep 100", memory={"limit": 32 << 20})
    oci("run", "--detach", "a")
    until(lambda: keyed(OCI_CGROUP / "a" / "memory.events")["oom_kill"] > 0, 30)
    failures = json.loads(oci("events", "--stats", "a").stdout)["data"]["memory"]["usage"]["failcnt"]
    oci("delete", "--force", "a")
    assert failures > 0


def devices_of_a_configuration_are_held_to() -> None:
    major, minor = disk_numbers()
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "b", "major": major, "minor": minor, "access": "r"},
    ]
    bundle("cat /dev/null; head -c 1 /disk > /dev/null && echo read; echo a > /disk", devices=rules)
    node = BUNDLE / "rootfs" / "disk"
    os.mknod(node, 0o060666, os.makedev(major, minor))
    try:
        said = oci("run", "a", check=False).stdout.splitlines()
    finally:
        node.unlink()
    assert said[0] == "read" and "Operation not permitted" in said[1], said


def cgroups_of_a_containers_own_go_with_it() -> None:
    """A container that may write its cgroups, as one with an init of its own does, and has made some."""
    own = "mkdir /sys/fs/cgroup/own /sys/fs/cgroup/own/deeper && echo 0 > /sys/fs/cgroup/own/deeper/cgroup.procs"
    bundle(f"{own} && echo +pids > /sys/fs/cgroup/cgroup.subtree_control && exec sleep 100")
    config = json.loads((BUNDLE / "config.json").read_text())
    for mount in config["mounts"]:
        mount["options"] = [
            option for option in mount.get("options", []) if option != "ro" or mount["type"] != "cgroup"
        ]
    (BUNDLE / "config.json").write_text(json.dumps(config))
    oci("run", "--detach", "a")
    directory = OCI_CGROUP / "a"
    until(lambda: "pids" in (directory / "cgroup.subtree_control").read_text())
    assert len(json.loads(oci("ps", "--format", "json", "a").stdout)) == 1
    assert oci("exec", "a", "cat", "/proc/self/cgroup").stdout.startswith("0::/")
    oci("pause", "a")
    assert state() == "paused"
    oci("resume", "a")
    oci("kill", "--all", "a", "KILL")
    until(lambda: keyed(directory / "cgroup.events")["populated"] == 0)
    oci("delete", "a")
    assert not OCI_CGROUP.exists()


def running() -> list[int]:
    return sorted(int(path.name) for path in Path("/proc").glob("[0-9]*") if os.path.exists(path / "exe"))


def nothing_is_left() -> None:
    """Comes last."""
    directories = [path for path in UNIFIED.iterdir() if path.is_dir() and path.name.startswith("testbed")]
    left = [below for path in directories for below in path.iterdir() if below.is_dir()]
    assert left == [] and not OCI_CGROUP.exists(), left
    assert running() == PROCESSES
    assert Path("/proc/self/mountinfo").read_text() == MOUNTS


MOUNTS, PROCESSES = "", list[int]()
CHECKS = (
    all_controllers_are_there,
    memory_ends_who_exceeds_it,
    tasks_end_at_their_limit,
    processor_time_is_throttled,
    a_forbidden_device_is_refused,
    frozen_means_standing_still,
    all_die_however_fast_they_fork,
    it_sees_its_own_cgroup_as_the_root,
    run_gives_output_and_status_twice,
    limits_of_a_configuration_are_set,
    a_life_by_the_command_line,
    kill_all_reaches_every_process,
    a_paused_container_is_deleted,
    out_of_memory_is_counted,
    devices_of_a_configuration_are_held_to,
    cgroups_of_a_containers_own_go_with_it,
    nothing_is_left,
)


def check_all() -> None:
    global MOUNTS, PROCESSES
    MOUNTS = Path("/proc/self/mountinfo").read_text()
    PROCESSES = running()
    for name in ("proc", "sys", "dev", "etc"):
        (BUNDLE / "rootfs" / name).mkdir(parents=True)
    subprocess.run(["cp", "-a", f"{BUSYBOX}/bin", BUNDLE / "rootfs"], check=True)
    for check in CHECKS:
        began = time.monotonic()
        try:
            check()
        except BaseException:
            outcome = json.dumps(traceback.format_exc())
        else:
            outcome = "ok"
        print(f"check: {check.__name__}: {time.monotonic() - began:.1f} s: {outcome}", flush=True)


def main() -> None:
    """Be an init: have the checks done in a child, and reap whoever is orphaned, until it ends."""
    child = os.fork()
    if child == 0:
        try:
            check_all()
        finally:
            os._exit(0)
    while os.wait()[0] != child:
        continue
    fcntl.ioctl(1, 0x5409, 1)  # TCSBRK: what is in the serial port when PID 1 ends is lost


if __name__ == "__main__":
    main()
