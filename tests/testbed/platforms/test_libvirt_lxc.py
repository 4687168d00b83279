"""libvirt's LXC containers for real: they see and serve what our own do, and leave nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct
from msgspec.structs import replace

from runtime import container
from runtime.cgroups import Cgroup
from runtime.errors import PrerequisiteError, UsageError, WorkloadError
from runtime.spec import Process, Resources, Spec, User
from testbed.lab import BRIDGE, Lab
from testbed.platforms.libvirt_lxc import LibvirtLxcPlatform, find_driver
from testbed.platforms.protocol import Instance
from tests.testbed.platforms.answers import greeting
from tests.testbed.ports import require_fixed

pytestmark = pytest.mark.root
TIMEOUT_S = 20.0


@pytest.fixture(scope="module", autouse=True)
def driver() -> None:
    try:
        find_driver()
    except PrerequisiteError as error:
        pytest.skip(f"{error.message}: {error.hint}")


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def platform(run_name: str, cgroup_parent: str, lab: Lab) -> Iterator[LibvirtLxcPlatform]:
    """A platform whose libvirtd starts with ``lab``, and of which nothing may be left."""
    scratch = Path("/run/testbed") / run_name
    made = LibvirtLxcPlatform(scratch, BRIDGE, run_name, lab)
    try:
        yield made
    finally:
        made.close()
    assert [path.name for path in scratch.iterdir()] == ["lock"]
    assert run_name not in Path("/proc/self/mountinfo").read_text()


def shell(layer: Path, script: str, **process: object) -> Spec:
    return Spec(
        Process(args=("sh", "-c", script), **process),  # type: ignore[arg-type]
        (str(layer),),
        "boxed",
        Resources(64 << 20, 1.0, 24),
        hosts=(("redis", "10.0.0.3"),),
    )


def instance(spec: Spec, tmp_path: Path, name: str = "a0-web") -> Instance:
    return Instance(name, 0, {"web": spec}, tmp_path / f"{name}.log")


def printed(log: Path) -> list[str]:
    text = re.sub(r"^\[\d+\.\d+\] ", "", log.read_text(), flags=re.MULTILINE)
    return text.split("testbed: exec\n", 1)[1].splitlines()


SEEN = """
id; pwd; umask; hostname; env | grep -v -e SHLVL -e _= | sort; ulimit -n; echo $$
grep -E '^(Cap|NoNewPrivs|Groups|Seccomp:)' /proc/self/status
cat /etc/hosts /etc/hostname
head -c 1 /proc/interrupts | wc -c; ls /sys/firmware | wc -l
touch /proc/sys/kernel/hostname /writable 2>&1
i=0; while [ $i -lt 40 ]; do sleep 1 & i=$((i+1)); done 2>&1 | tail -1
"""


def test_the_workload_sees_what_our_own_containers_does(
    platform: LibvirtLxcPlatform, lab: Lab, busybox_layer: Path, tmp_path: Path, cgroup_parent: str
) -> None:
    (busybox_layer / "srv").mkdir()
    user = User(1000, 1001, 0o027, (5, 6))
    spec = shell(busybox_layer, SEEN, env=("PATH=/bin", "GREETING=hello world"), cwd="/srv", user=user)
    log = tmp_path / "container.log"
    with log.open("wb") as file:
        container.run(spec, name=f"{cgroup_parent}/container", log=file.fileno())
    with lab:
        one = instance(spec, tmp_path)
        platform.start(one)
        phases = platform.started(one, TIMEOUT_S).phases
        platform._running[one.name].console.wait_for_end(TIMEOUT_S)
        assert not platform.alive(one)
        platform.stop(one)
    expected = log.read_text().splitlines()
    assert printed(one.log) == expected
    assert any("fork" in line for line in expected), "the task limit was not reached"
    assert sorted(phases, key=lambda name: phases[name]) == ["request", "created", "first_userspace", "first_process"]


def test_it_serves_within_its_limits_and_leaves_nothing(
    platform: LibvirtLxcPlatform, lab: Lab, busybox_layer: Path, tmp_path: Path
) -> None:
    (busybox_layer / "page").write_text("from the layer")
    with lab:
        link = lab.link(0, 0)
        before = sorted(name for _, name in socket.if_nameindex())
        spec = replace(shell(busybox_layer, "exec busybox nc -ll -p 80 -e cat /page"), link=link)
        one = instance(spec, tmp_path)
        platform.start(one)
        platform.started(one, TIMEOUT_S)
        with pytest.raises(UsageError, match="in use"):
            platform.start(one)
        assert greeting(str(link.address.ip), 80, TIMEOUT_S) == b"from the layer"
        (port,) = {name for _, name in socket.if_nameindex()} - set(before)
        require_fixed(port, link.mac)
        cgroup = platform.cgroup(one)
        names = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in cgroup.pids()]
        assert "libvirt_lxc" in names and len(names) >= 2, "its controller is part of what it costs"
        limit = cgroup.file("memory", "memory.limit_in_bytes", "memory.max")
        assert int(limit.read_text()) == 64 << 20
        assert cgroup.memory_bytes() > 0 and cgroup.cpu_usage_ns() > 0
        platform.stop(one)
        platform.stop(one)
        assert not any(directory.exists() for directory in cgroup.directories())
        assert sorted(name for _, name in socket.if_nameindex()) == before
    assert not (busybox_layer / ".testbed").exists()


def test_a_start_that_fails_says_where(
    platform: LibvirtLxcPlatform, lab: Lab, busybox_layer: Path, tmp_path: Path
) -> None:
    with lab:
        one = instance(shell(busybox_layer, "true", cwd="/proc/not/there"), tmp_path)
        platform.start(one)
        with pytest.raises(WorkloadError, match="chdir /proc/not/there: ENOENT"):
            platform.started(one, TIMEOUT_S)
        platform.stop(one)


def test_who_has_the_number_of_a_controller_that_ended_is_left_alone(platform: LibvirtLxcPlatform) -> None:
    """The kernel gives numbers again, and has what waits to be reaped in the root, where the whole host is."""
    with subprocess.Popen(["sleep", "100"]) as bystander:
        for number in (bystander.pid, 1, -1):
            cgroup = platform._find_cgroup(Named(number), "a0-web")
            assert cgroup.pids() == () and not cgroup.exists()
            cgroup.kill()
        assert bystander.poll() is None
        bystander.kill()


class Named(Struct):
    """A domain whose controller has, or had, this process number."""

    number: int

    def ID(self) -> int:
        return self.number


def test_close_ends_what_runs(
    platform: LibvirtLxcPlatform, lab: Lab, busybox_layer: Path, tmp_path: Path, cgroup_parent: str
) -> None:
    with lab:
        for name in ("a0-web", "a1-web"):
            platform.start(instance(shell(busybox_layer, "exec sleep 600"), tmp_path, name))
        cgroups = [platform.cgroup(instance(shell(busybox_layer, ""), tmp_path, name)) for name in ("a0-web", "a1-web")]
        platform.close()
    assert not any(directory.exists() for cgroup in cgroups for directory in cgroup.directories())
    assert not any(directory.exists() for directory in Cgroup(f"{cgroup_parent}/libvirtd").directories())
    assert os.listdir(tmp_path / "layers" / "busybox") == ["bin"]
    shutil.rmtree(tmp_path / "layers")
