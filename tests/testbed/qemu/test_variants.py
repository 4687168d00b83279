"""Kinds of virtual machine as data: their names, and the domains that come of them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from testbed.qemu.cloud_domain import boot_from_disk
from testbed.qemu.connection import open_embedded
from testbed.qemu.domain import domain_xml
from testbed.qemu.variants import VARIANTS, Memory, Variant, find_refusal, index_by_name
from tests.testbed.qemu.test_domain import domain


def test_two_variants_cannot_have_one_name() -> None:
    with pytest.raises(ValueError, match="called vm"):
        index_by_name((Variant("vm"), Variant("vm", machine="pc")))


def test_every_variant_has_a_class_that_makes_all_of_it() -> None:
    assert {name: find_refusal(variant) for name, variant in VARIANTS.items() if find_refusal(variant)} == {}


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
def test_kinds_of_machine_in_one_run_share_the_driver(scratch: Path, tmp_path: Path) -> None:
    folder = scratch / "libvirt"
    with open_embedded(folder, tmp_path / "cache") as first:
        with open_embedded(folder, tmp_path / "cache") as second:
            assert second is first
        assert first.isAlive(), "the first to leave does not end it"
    assert not folder.exists()


@pytest.mark.root
@pytest.mark.vm
def test_the_driver_is_opened_once_however_often_it_is_asked_for(tmp_path: Path, scratch: Path) -> None:
    """libvirt registers it anew each time that it is opened, and has room for some twenty."""
    folder = scratch / "libvirt"
    opened = []
    for _ in range(30):
        with open_embedded(folder, tmp_path / "cache") as connection:
            assert connection.isAlive()
            opened.append(connection)
    assert all(one is opened[0] for one in opened)
