"""The libvirt domain of a guest that boots a stock system from its own disk: pure data in, XML out."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from testbed.qemu.domain import QEMU_NAMESPACE
from vm_images.plans.unit import SERIAL

# What Debian 12 boots to a workload with, cloud-init included. Measured with its cloud kernel: unpacking the initial
# RAM disk ends in a panic for want of memory with 128 MiB, 160 MiB leave nothing to spare.
LEAST_MEMORY_BYTES = 192 << 20
# The last slots of the root bus but for the chipset's own: the devices that every guest may have are on the first.
_SYSTEM_SLOT, _SEED_SLOT = 0x1D, 0x1E


def cloud_memory_bytes(limit_bytes: int) -> int:
    """Return the guest's RAM: the limit, but not less than the stock system boots with; the unit holds the limit
    then."""
    return max(limit_bytes, LEAST_MEMORY_BYTES)


def _disk(source: Path, name: str, slot: int, *, kind: str, first: bool) -> Element:
    disk = Element("disk", {"type": "file", "device": "disk"})
    SubElement(disk, "driver", {"name": "qemu", "type": kind})
    SubElement(disk, "source", {"file": str(source)})
    SubElement(disk, "target", {"dev": name, "bus": "virtio"})
    if first:
        SubElement(disk, "boot", {"order": "1"})
    else:
        SubElement(disk, "readonly")
    address = {"type": "pci", "domain": "0", "bus": "0", "slot": str(slot), "function": "0"}
    SubElement(disk, "address", address)
    return disk


def boot_from_disk(xml: str, system: Path, seed: Path) -> str:
    """Return the domain of ``xml``, which boots a kernel directly, made to boot from the qcow2 disk ``system`` instead.

    Its one disk gets a serial number, by which the guest finds it; the volume ``seed`` is added. The firmware's and
    the boot loader's messages go to the serial console, for the host to time.
    """
    ElementTree.register_namespace("qemu", QEMU_NAMESPACE)
    root = ElementTree.fromstring(xml)
    booted, devices, layers = root.find("os"), root.find("devices"), root.find("devices/disk")
    assert booted is not None and devices is not None and layers is not None
    for direct in ("kernel", "initrd", "cmdline"):
        if (element := booted.find(direct)) is not None:
            booted.remove(element)
    SubElement(booted, "bios", {"useserial": "yes"})
    SubElement(layers, "serial").text = SERIAL
    index = list(devices).index(layers) + 1
    devices.insert(index, _disk(seed, "vdz", _SEED_SLOT, kind="raw", first=False))
    devices.insert(index, _disk(system, "vdy", _SYSTEM_SLOT, kind="qcow2", first=True))
    return ElementTree.tostring(root, encoding="unicode")
