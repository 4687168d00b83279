"""Kinds of virtual machine are platforms of their own, and every platform keeps the protocol."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from runtime.errors import UsageError
from testbed import platforms
from testbed.lab import Lab
from testbed.qemu.cloud_domain import boot_from_disk
from testbed.qemu.connection import embedded
from testbed.qemu.domain import domain_xml
from testbed.qemu.variants import VARIANTS, Disk, Memory, Variant, by_name, refusal
from tests.testbed.qemu.test_domain import domain


def test_every_variant_is_a_platform() -> None:
    assert platforms.NAMES == ("container", *VARIANTS, "libvirt-lxc")
    assert platforms.known(("vm", "container")) == ("vm", "container")
    with pytest.raises(UsageError, match="platform vm is named twice"):
        platforms.known(("vm", "container", "vm"))
    with pytest.raises(UsageError, match="unknown platform vmm"):
        platforms.known(("vm", "vmm"))


@pytest.mark.parametrize("name", platforms.NAMES)
def test_a_platform_says_what_it_is_before_it_is_prepared(name: str, tmp_path: Path) -> None:
    made = platforms.create(name, "run", tmp_path, Lab())
    assert made.name == name
    assert made.virtual == (name in VARIANTS)
    assert made.shared == (made.virtual and VARIANTS[name].guest_per == "application")
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_two_variants_cannot_have_one_name() -> None:
    with pytest.raises(ValueError, match="called vm"):
        by_name((Variant("vm"), Variant("vm", machine="pc")))


def test_every_variant_has_a_class_that_makes_all_of_it() -> None:
    assert {name: refusal(variant) for name, variant in VARIANTS.items() if refusal(variant)} == {}


CLOUD, NESTED = VARIANTS["vm-cloud"], VARIANTS["vm-containers"]
RESTORED, POD = VARIANTS["vm-restored"], VARIANTS["vm-pod"]
OWN = Disk("qcow2", file_system="ext4")


@pytest.mark.parametrize(
    ("variant", "reason"),
    [
        (Variant("x", bus="mmio"), "the machine q35 has no mmio bus"),
        (Variant("x", machine="microvm"), "the machine microvm has no pci bus"),
        (replace(CLOUD, start="restored"), "a stock system and a restored guest exclude each other"),
        (replace(CLOUD, inside="containers"), "a stock system and containers in a guest exclude each other"),
        (replace(CLOUD, guest_per="application"), "a stock system and one guest for all services exclude"),
        (replace(RESTORED, guest_per="application"), "a restored guest and one guest for all services exclude"),
        (replace(NESTED, guest_per="service"), "containers in a guest is not made with another guest_per"),
        (replace(CLOUD, machine="microvm", bus="mmio"), "a stock system is not made with another bus"),
        (replace(CLOUD, disk=OWN), "a stock system is not made with another disk"),
        (replace(CLOUD, kernel="minimal"), "a stock system is not made with another kernel"),
        (replace(NESTED, disk=OWN, kernel="minimal"), "containers in a guest is not made with another disk, kernel"),
        (replace(NESTED, memory=Memory(hugepages=True)), "containers in a guest is not made with .* memory.hugepages"),
        (replace(RESTORED, disk=OWN), "a restored guest is not made with another disk"),
        (replace(RESTORED, memory=Memory(balloon=True)), "a restored guest is not made with another memory.balloon"),
        (replace(POD, disk=Disk(file_system="ext4")), "one guest for all services is not made with another disk"),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_what_no_class_makes_is_refused_and_not_half_ignored(variant: Variant, reason: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platforms, "VARIANTS", {variant.name: variant})
        with pytest.raises(UsageError, match=f"no platform makes {variant.name}: {reason}"):
            platforms.create(variant.name, "run", tmp_path, Lab())


@pytest.mark.parametrize("memory", [Memory(), Memory(balloon=True), Memory(free_page_reporting=True)])
@pytest.mark.parametrize("disks", [1, 2, 16, 26])
@pytest.mark.parametrize("boot", ["direct", "cloud"])
def test_no_two_devices_have_one_slot(memory: Memory, disks: int, boot: str) -> None:
    """Slot 0 is the host bridge's, 31 the chipset's."""
    paths = tuple(Path(f"/store/{number}") for number in range(disks))
    xml = domain_xml(replace(domain(), memory=memory, disks=paths))
    if boot == "cloud":
        xml = boot_from_disk(xml, Path("/system"), Path("/seed"))
    slots = [int(address.get("slot", "0")) for address in ElementTree.fromstring(xml).iterfind("devices/*/address")]
    assert len(set(slots)) == len(slots) == disks + 1 + memory.has_balloon + 2 * (boot == "cloud")
    assert min(slots) > 0 and max(slots) < 31


@pytest.mark.root
@pytest.mark.vm
def test_kinds_of_machine_in_one_run_share_the_driver(run_name: str, tmp_path: Path) -> None:
    folder = Path("/run") / f"testbed-{run_name}" / "libvirt"  # short: the driver keeps it, and its sockets' names
    with embedded(folder, tmp_path / "cache") as first:
        with embedded(folder, tmp_path / "cache") as second:
            assert second is first
        assert first.isAlive(), "the first to leave does not end it"
    assert not folder.parent.exists()


@pytest.mark.root
@pytest.mark.vm
def test_the_driver_is_opened_once_however_often_it_is_asked_for(tmp_path: Path, run_name: str) -> None:
    """libvirt registers it anew each time that it is opened, and has room for some twenty."""
    folder = Path("/run") / f"testbed-{run_name}" / "libvirt"
    found = []
    for _ in range(30):
        with embedded(folder, tmp_path / "cache") as connection:
            assert connection.isAlive()
            found.append(connection)
    assert all(one is found[0] for one in found)
