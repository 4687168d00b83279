"""Virtual machines by a daemon: a libvirtd of the test's own, in another network namespace than the lab's."""

from __future__ import annotations

import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.errors import PrerequisiteError, TestbedError, WorkloadError
from runtime.home import store_root
from runtime.images.model import Image, ImageConfig, Layer
from runtime.spec import Process, Resources, Spec
from testbed.lab import BRIDGE, Lab
from testbed.platforms import vm
from testbed.platforms.protocol import Instance
from testbed.platforms.vm import VmPlatform
from testbed.qemu.daemon import Daemon
from testbed.qemu.variants import VARIANTS
from tests.testbed.platforms.answers import greeting
from tests.testbed.ports import require_fixed
from tests.waiting import until
from vm_images.kernel import ensure_kernel

pytestmark = [pytest.mark.root, pytest.mark.vm]
TIMEOUT_S = 60.0


@pytest.fixture
def platform(libvirt_daemon: Daemon, busybox_layer: Path, run_name: str) -> Iterator[VmPlatform]:
    scratch = Path("/run/testbed") / run_name
    try:
        ensure_kernel(store_root() / "guest")
    except PrerequisiteError as error:
        pytest.skip(f"no guest kernel: {error}")
    (busybox_layer / "page").write_text("from the layer")
    made = VmPlatform(scratch, BRIDGE, run_name, replace(VARIANTS["vm"], uri=libvirt_daemon.uri("qemu:///system")))
    image = Image("test/busybox", f"sha256:{run_name}", ImageConfig(), (Layer("sha256:busybox", busybox_layer),))
    disks = set((store_root() / "guest" / "disks").glob("*"))
    made.prepare_images([image])
    try:
        yield made
    finally:
        made.close()
        for path in set((store_root() / "guest" / "disks").glob("*")) - disks:
            if run_name.removeprefix("test-") in path.name:
                path.unlink()


def instance(layer: Path, script: str, tmp_path: Path, lab: Lab | None = None, name: str = "a0-web") -> Instance:
    spec = Spec(Process(args=("sh", "-c", script)), (str(layer),), "boxed", Resources(128 << 20, 1.0, 24))
    spec = replace(spec, link=lab.link(0, 0)) if lab else spec
    return Instance(name, 0, {"web": spec}, tmp_path / f"{name}.log")


def test_it_serves_in_the_lab_and_leaves_nothing(
    platform: VmPlatform,
    libvirt_daemon: Daemon,
    busybox_layer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vm, "adopt_orphans", lambda: pytest.fail("a daemon waits for ends that nobody reaps"))
    with Lab() as lab:
        one = instance(busybox_layer, "exec busybox nc -ll -p 80 -e cat /page", tmp_path, lab)
        before = sorted(name for _, name in socket.if_nameindex())
        platform.start(one)
        platform.started(one, TIMEOUT_S)
        assert greeting(str(one.spec.link.address.ip), 80, TIMEOUT_S) == b"from the layer"  # type: ignore[union-attr]
        (pid,) = platform.cgroup(one).pids()
        assert Path(f"/proc/{pid}/comm").read_text().startswith("qemu")
        assert Path(f"/proc/{pid}").stat().st_uid >= 1_879_048_192, "root only until it is here"
        (tap,) = {name for _, name in socket.if_nameindex()} - set(before)
        require_fixed(tap, one.spec.link.mac)  # type: ignore[union-attr]
        assert Path(f"/proc/{pid}/ns/net").samefile("/proc/thread-self/ns/net")
        assert not Path(f"/proc/{libvirt_daemon.pid}/ns/net").samefile("/proc/thread-self/ns/net")
        assert platform.alive(one)
        assert str(libvirt_daemon.socket) in str(platform.facts()["connection"])
        platform.stop(one)
        assert sorted(name for _, name in socket.if_nameindex()) == before
        assert not Path(f"/proc/{pid}").exists()
        assert not any(directory.exists() for directory in platform.cgroup(one).directories())


def test_a_daemon_that_goes_fails_the_trial_and_not_the_next(
    platform: VmPlatform, libvirt_daemon: Daemon, busybox_layer: Path, tmp_path: Path
) -> None:
    with Lab():
        one = instance(busybox_layer, "echo the last line; exec sleep 600", tmp_path)
        platform.start(one)
        platform.started(one, TIMEOUT_S)
        (pid,) = platform.cgroup(one).pids()
        libvirt_daemon.kill()
        with pytest.raises(WorkloadError, match=r"the connection to libvirt at .* was lost") as caught:
            while platform.alive(one):
                time.sleep(0.01)
        assert re.search(r"the last line|testbed: exec", caught.value.hint)
        libvirt_daemon.start()
        platform.stop(one)
        until(lambda: not Path(f"/proc/{pid}").exists())  # it is init that reaps it
        assert not any(directory.exists() for directory in platform.cgroup(one).directories())
        two = instance(busybox_layer, "exec sleep 600", tmp_path, name="a1-web")
        platform.start(two)
        platform.started(two, TIMEOUT_S)
        assert platform.alive(two)
        platform.stop(two)
        libvirt_daemon.kill()
        three = instance(busybox_layer, "exec sleep 600", tmp_path, name="a2-web")
        with pytest.raises(TestbedError, match="libvirt"):
            platform.start(three)
        assert not any(directory.exists() for directory in platform.cgroup(three).directories())
        shutil.rmtree(tmp_path / "layers")
