"""Containers for real: what the workload sees, what it cannot do, and that nothing stays behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime import container
from runtime.cgroups import Cgroup
from runtime.config.types import Mount
from runtime.errors import UsageError
from runtime.launcher import StepError
from runtime.plan.workload import Building
from runtime.spec import Process, Resources, Spec, User
from runtime.unionfs.overlay import WritableLayer
from tests.owned import mounts_of

pytestmark = pytest.mark.root


def shell(layer: Path, script: str, **process: object) -> Spec:
    return Spec(
        Process(args=("sh", "-c", script), **process),  # type: ignore[arg-type]
        (str(layer),),
        "boxed",
        Resources(64 << 20, 1.0, 32),
    )


def output(spec: Spec, name: str, tmp_path: Path) -> tuple[int, str]:
    log = tmp_path / "log"
    with log.open("wb") as file:
        status = container.run(spec, name=name, log=file.fileno())
    return status, log.read_text()


def test_it_is_alone_in_its_namespaces(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    script = "echo $$; hostname; ls /sys/class/net; cat /proc/self/cgroup; ls /proc | grep -c '^[0-9]'"
    status, text = output(shell(busybox_layer, script), f"{cgroup_parent}/a", tmp_path)
    lines = text.splitlines()
    assert status == 0
    assert lines[:3] == ["1", "boxed", "lo"]
    assert any(line.endswith("memory:/") or line == "0::/" for line in lines)
    assert int(lines[-1]) <= 4


def test_namespaces_differ_from_the_hosts(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    names = ("pid", "mnt", "uts", "ipc", "net", "cgroup")
    script = "; ".join(f"busybox readlink /proc/self/ns/{name}" for name in names)
    _, text = output(shell(busybox_layer, script), f"{cgroup_parent}/a", tmp_path)
    inside = text.split()
    assert len(inside) == len(names)
    assert not set(inside) & {os.readlink(f"/proc/self/ns/{name}") for name in names}


def test_writes_stay_inside(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    status, text = output(
        shell(busybox_layer, "echo changed > /bin/new && cat /bin/new /etc/hostname"), f"{cgroup_parent}/a", tmp_path
    )
    assert (status, text) == (0, "changed\nboxed\n")
    assert not (busybox_layer / "bin" / "new").exists()
    assert mounts_of(tmp_path, cgroup_parent) == []


def test_every_cgroup_is_its_own_and_has_its_limits(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    """By the time that the workload runs."""
    log = tmp_path / "log"
    with log.open("wb") as file:
        started = container.start(shell(busybox_layer, "sleep 100"), name=f"{cgroup_parent}/a", stdout=file.fileno())
    try:
        for directory in started.cgroup.directories():
            assert str(started.process.pid) in (directory / "cgroup.procs").read_text().split()
        quota = started.cgroup.file("cpu", "cpu.cfs_quota_us", "cpu.max").read_text()
        assert quota.split()[0] == "100000"
        assert started.cgroup.file("pids", "pids.max", "pids.max").read_text() == "32\n"
    finally:
        started.delete()


def test_it_may_use_the_processors_that_we_may(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    """Nobody is kept off any while it is made."""
    spec = shell(busybox_layer, "grep Cpus_allowed: /proc/self/status")
    ours = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Cpus_allowed:"))
    assert output(spec, f"{cgroup_parent}/a", tmp_path) == (0, f"{ours}\n")


def test_a_cgroup_that_is_there_is_named_and_ends_it(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    cgroup = Cgroup(f"{cgroup_parent}/a")
    if not cgroup.hierarchies.v1:
        pytest.skip("on cgroup v2 there is one cgroup")
    taken = cgroup.directories()[1]
    taken.mkdir(parents=True)
    with pytest.raises(StepError, match=f"mkdir {taken}.*: File exists"):
        output(shell(busybox_layer, "echo never"), cgroup.name, tmp_path)
    assert (tmp_path / "log").read_text() == "" and not any(path.exists() for path in cgroup.directories())
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_the_workload_is_the_user_it_was_told_to_be(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    spec = shell(
        busybox_layer,
        "id -u; id -g; id -G; grep -E 'CapPrm|CapBnd|NoNew' /proc/self/status",
        user=User(12, 34, additional_gids=(56,)),
    )
    _, text = output(spec, f"{cgroup_parent}/a", tmp_path)
    assert text.split()[:4] == ["12", "34", "34", "56"]
    assert "CapPrm:\t0000000000000000" in text
    assert "CapBnd:\t00000000a80425fb" in text  # docker's default set
    assert "NoNewPrivs:\t1" in text


def test_root_keeps_the_default_capabilities_only(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    _, text = output(shell(busybox_layer, "grep CapEff /proc/self/status"), f"{cgroup_parent}/a", tmp_path)
    assert text == "CapEff:\t00000000a80425fb\n"


@pytest.mark.parametrize(
    "attempt",
    [
        "mount -t tmpfs none /bin",
        "echo 1 > /proc/sys/kernel/panic",
        "echo c > /proc/sysrq-trigger",
        "busybox mkdir /sys/kernel/x",
        "test -s /proc/kcore",
        "busybox mknod /d b 254 0 && dd if=/d of=/dev/null count=1",
    ],
)
def test_it_may_not(attempt: str, busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    status, text = output(shell(busybox_layer, f"{attempt} 2>&1"), f"{cgroup_parent}/a", tmp_path)
    assert status != 0, text


def test_devices_work(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    script = "echo x > /dev/null && dd if=/dev/urandom of=/dev/shm/a bs=8 count=1 2>/dev/null && stat -c %s /dev/shm/a"
    assert output(shell(busybox_layer, script), f"{cgroup_parent}/a", tmp_path) == (0, "8\n")


def test_memory_beyond_the_limit_is_killed(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    spec = shell(busybox_layer, "dd if=/dev/zero of=/big bs=1M count=256 2>&1")
    status, _ = output(replace(spec, resources=Resources(32 << 20)), f"{cgroup_parent}/a", tmp_path)
    assert status != 0


def test_processes_beyond_the_limit_are_refused(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    spec = shell(busybox_layer, "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; echo all")
    status, text = output(replace(spec, resources=Resources(pids=4)), f"{cgroup_parent}/a", tmp_path)
    assert "fork" in text and status != 0


@pytest.mark.parametrize(("script", "expected"), [("exit 7", 7), ("kill -9 $$; exit 0", 0), ("true", 0)])
def test_exit_status(script: str, expected: int, busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    # A pid namespace's init ignores signals it sends itself, SIGKILL included (pid_namespaces(7)).
    assert output(shell(busybox_layer, script), f"{cgroup_parent}/a", tmp_path)[0] == expected


def test_a_command_that_is_not_there(busybox_layer: Path, cgroup_parent: str) -> None:
    spec = replace(shell(busybox_layer, ""), process=Process(args=("nonsense",)))
    with pytest.raises(StepError, match=r"execve nonsense: No such file or directory"):
        container.run(spec, name=f"{cgroup_parent}/a")
    assert not any(path.exists() for path in Cgroup(f"{cgroup_parent}/a").directories())


def test_a_missing_layer_names_step_and_path(tmp_path: Path, cgroup_parent: str, busybox_layer: Path) -> None:
    spec = replace(shell(busybox_layer, ""), layers=(str(busybox_layer), str(busybox_layer.parent / "gone")))
    with pytest.raises(StepError, match=r"step \d+: mount overlay .*gone.*: No such file or directory"):
        container.run(spec, name=f"{cgroup_parent}/a")


def test_a_taken_name_is_refused_and_left_alone(busybox_layer: Path, cgroup_parent: str) -> None:
    first = container.start(shell(busybox_layer, "sleep 30"), name=f"{cgroup_parent}/a", stdout=1)
    try:
        with pytest.raises(UsageError, match="a cgroup of this name exists"):
            container.start(shell(busybox_layer, "true"), name=f"{cgroup_parent}/a", stdout=1)
        assert first.alive()
    finally:
        first.delete()


def test_delete_ends_every_process(busybox_layer: Path, cgroup_parent: str) -> None:
    started = container.start(shell(busybox_layer, "sleep 30 & sleep 30"), name=f"{cgroup_parent}/a", stdout=1)
    time.sleep(0.1)
    pids = started.cgroup.pids()
    started.delete()
    assert len(pids) >= 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert started.exit_status == 128 + signal.SIGKILL


def test_phases_are_in_order(busybox_layer: Path, cgroup_parent: str) -> None:
    before = time.monotonic_ns()
    started = container.start(shell(busybox_layer, "true"), name=f"{cgroup_parent}/a", stdout=1)
    after = time.monotonic_ns()
    started.delete()
    times = [before, started.requested_ns, started.process.cloned_ns, started.process.executed_ns, after]
    assert times == sorted(times)


def test_descriptors_do_not_grow(busybox_layer: Path, cgroup_parent: str) -> None:
    spec = shell(busybox_layer, "true")
    container.run(spec, name=f"{cgroup_parent}/a")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        container.run(spec, name=f"{cgroup_parent}/a")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_running_container_holds_no_descriptor(busybox_layer: Path, cgroup_parent: str) -> None:
    """Thousands may run, and a process may have but 4,096 open files."""
    before = len(os.listdir("/proc/self/fd"))
    running = [
        container.start(shell(busybox_layer, "sleep 30"), name=f"{cgroup_parent}/{n}", stdout=1) for n in range(3)
    ]
    held = len(os.listdir("/proc/self/fd")) - before
    for each in running:
        each.delete()
    assert held == 0


def test_waiting_has_a_limit(busybox_layer: Path, cgroup_parent: str) -> None:
    started = container.start(shell(busybox_layer, "sleep 0.3; exit 3"), name=f"{cgroup_parent}/a", stdout=1)
    assert started.wait(0) is None and started.wait(0.01) is None
    assert started.wait(10) == 3
    started.delete()
    assert started.exit_status == 3


def test_another_process_joins_it_for_so_long(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    spec = shell(busybox_layer, "sleep 100", user=User(5, 6))
    name, log = f"{cgroup_parent}/a", tmp_path / "log"
    first = container.start(spec, name=name, stdout=1)
    try:
        with log.open("w+b") as out:
            streams = (0, out.fileno(), out.fileno())

            def run(script: str, timeout_s: float) -> int | None:
                process = replace(spec.process, args=("sh", "-c", script))
                joined = container.join(spec, process, pid=first.process.pid, cgroup=name, streams=streams)
                return container.wait_or_kill(joined.pid, timeout_s)

            assert run("id -u; hostname; busybox ps | grep -c 'sleep 10[0]'; exit 9", 20) == 9
            assert log.read_text() == "5\nboxed\n1\n"
            assert run("sleep 50", 0.2) is None
            assert [pid for pid in first.cgroup.pids() if pid != first.process.pid] == []
        with pytest.raises(StepError):
            container.join(
                spec, replace(spec.process, args=("nowhere",)), pid=first.process.pid, cgroup=name, streams=(0, 1, 2)
            )
    finally:
        first.delete()


def test_what_it_mounts_of_the_host(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    """Also what lies where the container's own memory is mounted; and a root that takes no writes."""
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "file").write_text("the host's\n")
    spec = replace(
        shell(
            busybox_layer,
            "cat /given/file /one; echo > /given/no; echo > /own/yes && echo written; echo > /no; echo > /w/x; pwd",
            cwd="/made/here",
        ),
        mounts=(
            Mount("/given", "bind", str(tmp_path / "given"), ("rbind", "ro")),
            Mount("/one", "bind", str(tmp_path / "given" / "file"), ("bind", "ro")),
            Mount("/own", "bind", str(tmp_path / "given"), ("rbind", "rw")),
            Mount("/w", "tmpfs", "tmpfs", ("nosuid", "mode=755")),
        ),
        read_only=True,
    )
    status, text = output(spec, f"{cgroup_parent}/a", tmp_path)
    assert (status, text.splitlines()) == (
        0,
        [
            *("the host's", "the host's", "sh: can't create /given/no: Read-only file system", "written"),
            *("sh: can't create /no: Read-only file system", "/made/here"),
        ],
    )
    assert sorted(os.listdir(tmp_path / "given")) == ["file", "yes"]
    assert mounts_of(tmp_path, cgroup_parent) == []


def test_it_has_no_more_file_systems_than_it_needs(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> None:
    """Each costs every memory cgroup of the host; the writable layer, /dev, /dev/shm and what hides directories share
    one."""
    _, text = output(shell(busybox_layer, "cat /proc/self/mountinfo"), f"{cgroup_parent}/a", tmp_path)
    mounted = {line.split()[4]: line.split()[2] for line in text.splitlines()}
    assert mounted["/dev/shm"] == mounted["/dev"]
    assert mounted["/proc/acpi"] == mounted["/sys/firmware"] == mounted["/dev"]
    assert len(set(mounted.values())) == 6  # /, /proc, /sys, /dev, /dev/pts, /dev/mqueue
    assert "nosuid,nodev,noexec" in next(line for line in text.splitlines() if line.split()[4] == "/dev/shm")


def test_a_build_writes_to_disk_and_only_what_it_changed(
    busybox_layer: Path, cgroup_parent: str, tmp_path: Path
) -> None:
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    spec = shell(busybox_layer, "echo built > /made; busybox cat /etc/resolv.conf")
    building = Building(WritableLayer(str(upper), str(work)), (("resolv.conf", "nameserver ::1\n"),))
    with (tmp_path / "log").open("wb") as log:
        assert container.run(spec, name=f"{cgroup_parent}/a", building=building, log=log.fileno()) == 0
    assert (upper / "made").read_text() == "built\n"
    assert (tmp_path / "log").read_text() == "nameserver ::1\n"
    assert not (upper / "etc" / "hosts").exists()
