"""Containers in a virtual machine: our own runtime in the guest, each service with its limits and its address."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup
from runtime.errors import PrerequisiteError, TestbedError, UsageError, WorkloadError
from runtime.home import store_root
from runtime.images.model import Image, ImageConfig, Layer
from runtime.spec import Process, Resources, Spec
from testbed.lab import BRIDGE, Lab
from testbed.platforms.nested import HOST_MEMORY_BYTES, ContainersInVmPlatform, sum_machine_resources
from testbed.platforms.protocol import Instance
from testbed.qemu.variants import VARIANTS
from tests.testbed.platforms.answers import fetch, knock
from tests.testbed.ports import require_fixed
from tests.waiting import until

TIMEOUT_S = 120.0
MIB = 1 << 20


def spec(script: str, layers: tuple[str, ...] = ("/layer",), **resources: float | int) -> Spec:
    return Spec(Process(("sh", "-c", script)), layers, "box", Resources(**resources))  # type: ignore[arg-type]


def test_the_machine_has_room_for_all_limits_and_the_system_inside() -> None:
    both = {"a": spec("", memory_bytes=128 * MIB, cpus=0.5), "b": spec("", memory_bytes=256 * MIB, cpus=1.0)}
    resources = sum_machine_resources(both)
    assert resources.cpus == 1.5 and resources.memory_bytes is not None
    assert resources.memory_bytes == 384 * MIB + HOST_MEMORY_BYTES + 384 * MIB // 64
    assert sum_machine_resources({**both, "c": spec("", memory_bytes=64 * MIB)}).cpus is None, "one has no limit"
    with_room = sum_machine_resources(both, Resources(memory_bytes=512 * MIB))
    assert with_room.cpus is None, "tenants have all processors"
    assert with_room.memory_bytes == 896 * MIB + HOST_MEMORY_BYTES + 896 * MIB // 64
    with pytest.raises(UsageError, match="service c has no memory limit"):
        sum_machine_resources({**both, "c": spec("")})


@pytest.fixture
def layers(run_name: str) -> Iterator[tuple[Path, ...]]:
    """Two layers on the store's file system, from which a disk is linked together; the second has a whiteout."""
    folder = store_root() / "guest" / f"layers-{run_name}"
    low, top = folder / "low", folder / "top"
    (low / "bin").mkdir(parents=True)
    shutil.copy2("/bin/busybox", low / "bin" / "busybox")
    for command in ("sh", "dd", "sleep", "wget", "nc", "httpd", "cat", "ls", "hostname"):
        (low / "bin" / command).symlink_to("busybox")
    (low / "gone").touch()
    (top / "srv").mkdir(parents=True)
    (top / "srv" / "index.html").write_text("from the layer")
    os.mknod(top / "gone", 0o020000, os.makedev(0, 0))
    disks = set(folder.parent.glob("disks/*"))
    try:
        yield low, top
    finally:
        shutil.rmtree(folder)
        for path in set(folder.parent.glob("disks/*")) - disks:
            if path.name.endswith(".erofs") and path in _MADE:
                path.unlink()
        _MADE.clear()


_MADE: list[Path] = []


@pytest.fixture
def platform(
    run_name: str, cgroup_parent: str, scratch: Path, layers: tuple[Path, ...]
) -> Iterator[ContainersInVmPlatform]:
    made = ContainersInVmPlatform(scratch, BRIDGE, run_name, VARIANTS["vm-containers"])
    image = Image(
        "test/nested", "sha256:x", ImageConfig(), tuple(Layer(f"sha256:{run_name}{p.name}", p) for p in layers)
    )
    try:
        try:
            made.prepare_images([image])
        except PrerequisiteError as error:
            pytest.skip(f"no virtual machines: {error}")
        _MADE.append(made.disk)
        yield made
    finally:
        made.close()


STORE = "httpd -p 80 -h /srv; echo up; nc -l -p 81 > /dev/null; echo over; exit 5"
WEB = """
ls / | cat; hostname; while ! wget -q -O - http://store/index.html; do sleep 0.1; done; echo
dd if=/dev/zero of=/dev/null bs=64M count=1; echo dd $?
(for i in 1 2 3 4 5 6 7 8; do sleep 99 & done) 2>&1
echo ready; exec sleep 99
"""


def instance(lab: Lab, log: Path, scripts: Mapping[str, str], layers: tuple[Path, ...]) -> Instance:
    links = {name: lab.link(0, index) for index, name in enumerate(scripts)}
    hosts = tuple((name, str(link.address.ip)) for name, link in links.items())
    specs = {
        name: Spec(
            Process(("sh", "-c", script)),
            tuple(map(str, layers)),
            name,
            Resources(32 * MIB, 1.0, 6),
            links[name],
            hosts,
        )
        for name, script in scripts.items()
    }
    return Instance("a0-app", 0, specs, log)


def texts(log: Path) -> list[str]:
    return [re.sub(r"^\[\d+\.\d+\] ", "", line) for line in log.read_text().splitlines()]


def wait_for(log: Path, line: str) -> None:
    def told() -> bool:
        assert "testbed: web: ended" not in log.read_text(), texts(log)
        return line in texts(log)

    until(told, TIMEOUT_S, lambda: texts(log))


@pytest.mark.root
@pytest.mark.vm
def test_services_are_containers_in_one_guest(
    platform: ContainersInVmPlatform, layers: tuple[Path, ...], tmp_path: Path, cgroup_parent: str
) -> None:
    with Lab() as lab:
        one = instance(lab, tmp_path / "log", {"store": STORE, "web": WEB}, layers)
        platform.start(one)
        started = platform.started(one, TIMEOUT_S)
        for service in one.specs:
            phases = started.of(service)
            order = (
                "request defined spawned created kernel_entry first_userspace container_created first_process".split()
            )
            assert sorted(phases, key=lambda name: (phases[name], order.index(name))) == order
        assert started.of("store")["first_process"] < started.of("web")["first_process"]
        link = one.specs["store"].link
        assert link is not None
        wait_for(one.log, "web: ready")
        assert fetch(f"http://{link.address.ip}/index.html", 0) == "from the layer"
        assert platform.alive(one)
        (tap,) = {name for _, name in socket.if_nameindex()} - {"lo", BRIDGE}
        links = [spec.link for spec in one.specs.values()]
        inside = [link.mac for link in links if link is not None]
        require_fixed(tap, *inside, *(first + inside[0][5:] for first in ("02:01", "02:02")))
        assert len(platform.cgroup(one).pids()) == 1, "QEMU, and nothing else"
        knock(str(link.address.ip), 81, TIMEOUT_S)
        assert platform.exit_status(one, TIMEOUT_S) == 5, "the guest ends with the first container, as that did"
        assert not platform.alive(one)
        platform.stop(one)
        assert not any(path.exists() for path in Cgroup(f"{cgroup_parent}/{one.name}").directories())
    said = texts(one.log)
    web = [line.removeprefix("web: ") for line in said if line.startswith("web: ")]
    assert web[:7] == ["bin", "dev", "etc", "proc", "srv", "sys", "web"], "the layers' overlay, a deleted file gone"
    assert "from the layer" in web, "reached by name, over the guest's bridge"
    assert any("fork" in line for line in web), "the limit of tasks was not reached"
    assert "dd 137" in web, "the limit of memory was not reached"
    assert "store: over" in said and "testbed: store: ended: 5" in said


@pytest.mark.root
@pytest.mark.vm
def test_a_container_that_cannot_start_says_where(
    platform: ContainersInVmPlatform, layers: tuple[Path, ...], tmp_path: Path
) -> None:
    with Lab() as lab:
        fine = instance(lab, tmp_path / "log", {"store": "exec sleep 99"}, layers)
        wrong = Spec(Process(("/not/there",)), tuple(map(str, layers)), "web", Resources(32 * MIB))
        one = Instance(fine.name, 0, {**fine.specs, "web": wrong}, fine.log)
        platform.start(one)
        with pytest.raises(WorkloadError, match=r"web: failed: step .*execve /not/there: No such file"):
            platform.started(one, TIMEOUT_S)
        platform.stop(one)
        with pytest.raises(TestbedError, match="was not prepared"):
            platform.start(Instance("a1-app", 1, {"web": spec("true", memory_bytes=MIB)}, tmp_path / "other"))
