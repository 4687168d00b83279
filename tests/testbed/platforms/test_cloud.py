"""Virtual machines with a stock system: what they boot from, and one that does so for real."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from runtime import container
from runtime.errors import PrerequisiteError
from runtime.images.model import Image, ImageConfig, Layer
from runtime.spec import Process, Resources, Spec, User
from testbed.lab import BRIDGE, Lab
from testbed.platforms import registry
from testbed.platforms.cloud import CloudPlatform
from testbed.platforms.protocol import Instance
from testbed.qemu.cloud_domain import LEAST_MEMORY_BYTES, boot_from_disk, cloud_memory_bytes
from testbed.qemu.domain import domain_xml
from testbed.qemu.variants import VARIANTS
from tests.testbed.platforms.answers import fetch
from tests.testbed.qemu.test_domain import domain
from vm_images.cloud import ensure_cloud

# Such a boot takes 40 s under emulation on an idle host; this is for a busy one.
TIMEOUT_S = 400.0
PHASES = [
    *("request", "defined", "spawned", "created", "firmware", "boot_loader", "kernel_entry", "initial_ramdisk", "init"),
    *("cloud_local", "cloud_network", "cloud_config", "cloud_final", "first_process"),
]
# The page is served before the rest is printed, so that whoever has fetched it has seen all there is to see. The last
# line asks for the word to end, which a page gives.
SEEN = """
id; pwd; umask; hostname; env | grep -v -e SHLVL -e _= | sort; ulimit -n
grep -E '^(Cap|NoNewPrivs|Groups|Seccomp:)' /proc/self/status
cat /etc/hosts /etc/hostname
ls -l /dev | grep -v '^total' | sed 's/  */ /g' | cut -d' ' -f1,3-6,10-
head -c 1 /proc/interrupts | wc -c; ls /sys/firmware | wc -l
touch /proc/sys/kernel/hostname /written 2>&1 || true
"""
SERVE = "busybox httpd -p 8080 -h /srv; until [ -e /srv/end ]; do sleep 0.1; done; exit 7"


@pytest.fixture(scope="module")
def boot() -> ElementTree.Element:
    """The XML of a machine that boots from its disk."""
    return ElementTree.fromstring(boot_from_disk(domain_xml(domain()), Path("/clones/a.qcow2"), Path("/run/seed")))


def test_firmware_and_boot_loader_take_the_place_of_the_kernel(boot: ElementTree.Element) -> None:
    system = boot.find("os")
    assert system is not None
    assert [element.tag for element in system] == ["type", "bios"]
    assert system.find("bios[@useserial='yes']") is not None


def test_the_system_is_booted_and_the_others_are_read_only(boot: ElementTree.Element) -> None:
    disks = {disk.find("source").get("file"): disk for disk in boot.iterfind("devices/disk")}  # type: ignore[union-attr]
    assert list(disks) == ["/store/a.erofs", "/clones/a.qcow2", "/run/seed"]
    layers, system, seed = disks.values()
    assert layers.findtext("serial") == "layers"
    assert [disk.find("readonly") is not None for disk in (layers, system, seed)] == [True, False, True]
    assert [disk.find("boot") is not None for disk in (layers, system, seed)] == [False, True, False]
    assert [disk.find("driver").get("type") for disk in (layers, system, seed)] == ["raw", "qcow2", "raw"]  # type: ignore[union-attr]
    places = [address.get("slot") for address in boot.iterfind("devices/*/address")]
    assert len(set(places)) == len(places) == 4


def test_the_rest_of_the_machine_is_the_same(boot: ElementTree.Element) -> None:
    direct = ElementTree.fromstring(domain_xml(domain()))
    changed = {"os", "devices"}
    for one, other in zip(direct, boot, strict=True):
        assert one.tag == other.tag
        if one.tag not in changed:
            assert ElementTree.tostring(one) == ElementTree.tostring(other)
    unchanged = [ElementTree.tostring(device) for device in boot.iterfind("devices/*") if device.tag != "disk"]
    assert unchanged == [
        ElementTree.tostring(device) for device in direct.iterfind("devices/*") if device.tag != "disk"
    ]


def test_ram_is_the_limit_or_what_the_system_boots_with() -> None:
    assert cloud_memory_bytes(1 << 30) == 1 << 30
    assert cloud_memory_bytes(128 << 20) == LEAST_MEMORY_BYTES


def test_it_is_given_more_time_and_is_not_asked_for_by_default(tmp_path: Path) -> None:
    made = registry.create("vm-cloud", "run", tmp_path, Lab())
    assert isinstance(made, CloudPlatform)
    assert made.patience > registry.create("vm", "run", tmp_path, Lab()).patience == 1


@pytest.fixture(scope="module")
def home(home: Path) -> Path:
    """With the stock disk of the real store, where it is built unless it is there."""
    real = next((home / "guest").glob("kernel-*")).resolve().parent
    try:
        disk = ensure_cloud(real, print)
    except PrerequisiteError as error:
        pytest.skip(f"no guest to boot: {error}")
    (home / "guest" / disk.folder.name).symlink_to(disk.folder)
    return home


@pytest.fixture
def layer(layer: Path) -> Path:
    """A layer with a page, and one that ends the workload when it is asked for."""
    served = layer / "srv"
    (served / "cgi-bin").mkdir()
    (served / "cgi-bin" / "end").write_text("#!/bin/sh\necho; echo > /srv/end\n")
    (served / "cgi-bin" / "end").chmod(0o755)
    served.chmod(0o777)
    return layer


@pytest.fixture
def platform(home: Path, run_name: str, cgroup_parent: str, scratch: Path, layer: Path) -> Iterator[CloudPlatform]:
    """The platform, with the layer's disk."""
    platform = CloudPlatform(scratch, BRIDGE, run_name, VARIANTS["vm-cloud"])
    try:
        image = Image("test/busybox", f"sha256:{run_name}", ImageConfig(), (Layer("sha256:busybox", layer),))
        platform.prepare_images([image])
        yield platform
    finally:
        platform.close()


def spec(layer: Path, script: str) -> Spec:
    process = Process(
        ("sh", "-c", script), ("PATH=/bin", "GREETING=hello world"), "/srv", User(1000, 1001, 0o027, (5, 6))
    )
    resources = Resources(128 << 20, 1.0, 24)
    return Spec(process, (str(layer),), "boxed", resources, hosts=(("redis", "10.0.0.3"),))


def printed(log: Path) -> list[str]:
    """What the workload wrote: the console's lines from the exec to the exit, less the system's own."""
    text = re.sub(r"^\[\d+\.\d+\] ", "", log.read_text(), flags=re.MULTILINE)
    output = text.split("testbed: exec\n", 1)[1].split("testbed: exit status", 1)[0]
    return [
        line for line in output.splitlines() if line and not re.search(r"^\[ *\d+\.\d+\]|\x1b|ci-info|login:", line)
    ]


@pytest.mark.root
@pytest.mark.vm
@pytest.mark.network
def test_a_stock_system_boots_serves_and_ends(
    platform: CloudPlatform, home: Path, layer: Path, tmp_path: Path, cgroup_parent: str, run_name: str
) -> None:
    """One boot for all there is to see: phases, address, what the workload finds, its end, and that nothing is left."""
    log = tmp_path / "container.log"
    with log.open("wb") as file:
        assert container.run(spec(layer, SEEN), name=f"{cgroup_parent}/container", log=file.fileno()) == 0
    shared = ensure_cloud(home / "guest", print).path
    before = shared.stat()
    with Lab() as lab:
        link = lab.link(0, 0)
        served = replace(spec(layer, SEEN + SERVE), link=link)
        one = Instance("a0-web", 0, {"web": served}, tmp_path / "a0-web.log")
        platform.start(one)
        phases = platform.started(one, TIMEOUT_S).phases
        assert sorted(phases, key=lambda name: phases[name]) == PHASES
        assert fetch(f"http://{link.address.ip}:8080/index.html", 30) == "from the layer"
        assert platform.alive(one)
        assert len(platform.cgroup(one).pids()) == 1
        with suppress(OSError):  # the answer may not get out any more
            fetch(f"http://{link.address.ip}:8080/cgi-bin/end", 30)
        assert platform.exit_status(one, TIMEOUT_S) == 7
        assert not platform.alive(one)
        platform.stop(one)
        platform.stop(one)
    assert printed(one.log) == log.read_text().splitlines()
    assert sorted(path.name for path in (home / "guest").glob(f".partial-{run_name}*/*")) == ["fresh"]
    platform.close()
    assert list((home / "guest").glob(".partial-*")) == []
    assert not any(directory.exists() for directory in platform.cgroup(one).directories())
    after = shared.stat()
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size), "the base is untouched"
