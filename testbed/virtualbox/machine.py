"""A machine of VirtualBox's as its settings file has it: pure data in, XML out.

The format is that of VirtualBox's own settings files (VirtualBox-settings.xsd of its SDK), in the version of 6.1, which
later ones read. What is left out is as VirtualBox has it by default.
"""

from __future__ import annotations

from pathlib import Path
from uuid import UUID
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from msgspec import Struct

from testbed.qemu.domain import add_child

_NAMESPACE = "http://www.virtualbox.org/"
_VERSION = "1.18-linux"
_SYSTEM = "Linux26_64"
# A restart is the guest's end, as it is for QEMU with -no-reboot.
_ENDING = ("VBoxInternal/PowerOffInsteadOfReset", "1")
# The guest reads the processor's own time stamps: VirtualBox's default where that says that they are steady, as all of
# the last fifteen years do. Else each reading is an exit, and Linux has one in every system call (by which it chooses
# an offset of its stack).
_STEADY = ("VBoxInternal/TM/TSCMode", "RealTSCOffset")


class Disk(Struct, frozen=True):
    """A disk: its identity, and the file that describes it."""

    identity: UUID
    file: Path


class Machine(Struct, frozen=True):
    """A machine: ``boot`` is a disk on the SATA controller, which the firmware boots from, and ``root`` one on a
    virtio controller. ``console`` is a socket that its serial port connects to; ``mac`` None: no network card, else one
    that is bridged with the interface ``card``. ``steady``: the processor's time stamps are, whatever it says."""

    identity: UUID
    name: str
    memory_bytes: int
    vcpus: int
    boot: Disk
    root: Disk
    console: Path
    card: str
    mac: str | None
    steady: bool = False


def machine_xml(machine: Machine) -> str:
    """Return the machine's settings file."""
    document = Element("VirtualBox", xmlns=_NAMESPACE, version=_VERSION)
    root = add_child(document, "Machine", uuid=_braced(machine.identity), name=machine.name, OSType=_SYSTEM)
    media = add_child(add_child(root, "MediaRegistry"), "HardDisks")
    for disk in (machine.boot, machine.root):
        add_child(media, "HardDisk", uuid=_braced(disk.identity), location=str(disk.file), format="VMDK", type="Normal")
    extra = add_child(root, "ExtraData")
    for name, value in (_ENDING, _STEADY)[: 1 + machine.steady]:
        add_child(extra, "ExtraDataItem", name=name, value=value)
    _add_hardware(add_child(root, "Hardware"), machine)
    return ElementTree.tostring(document, encoding="unicode", xml_declaration=True)


def _add_hardware(hardware: Element, machine: Machine) -> None:
    processors = add_child(hardware, "CPU", count=str(machine.vcpus))
    add_child(processors, "PAE", enabled="true")
    add_child(processors, "LongMode", enabled="true")
    add_child(processors, "X2APIC", enabled="true")
    add_child(hardware, "Memory", RAMSize=str(machine.memory_bytes >> 20))
    order = add_child(hardware, "Boot")
    for position, device in enumerate(("HardDisk", "None", "None", "None"), 1):
        add_child(order, "Order", position=str(position), device=device)
    add_child(hardware, "Display", controller="None")
    bios = add_child(hardware, "BIOS")
    add_child(bios, "ACPI", enabled="true")
    add_child(bios, "IOAPIC", enabled="true")
    add_child(bios, "Logo", fadeIn="false", fadeOut="false", displayTime="0")
    add_child(bios, "BootMenu", mode="Disabled")
    if machine.mac is not None:
        _add_card(add_child(hardware, "Network"), machine.mac, machine.card)
    ports = add_child(hardware, "UART")
    add_child(
        ports,
        "Port",
        slot="0",
        enabled="true",
        IOBase="0x3f8",
        IRQ="4",
        hostMode="HostPipe",
        server="false",
        path=str(machine.console),
    )
    add_child(hardware, "RTC", localOrUTC="UTC")
    controllers = add_child(hardware, "StorageControllers")
    _add_controller(controllers, "boot", "AHCI", machine.boot)
    _add_controller(controllers, "root", "VirtioSCSI", machine.root)


def _add_card(network: Element, mac: str, card: str) -> None:
    adapter = add_child(
        network, "Adapter", slot="0", enabled="true", MACAddress=mac.replace(":", "").upper(), type="virtio"
    )
    add_child(adapter, "BridgedInterface", name=card)


def _add_controller(controllers: Element, name: str, kind: str, disk: Disk) -> None:
    controller = add_child(
        controllers, "StorageController", name=name, type=kind, PortCount="1", useHostIOCache="true", Bootable="true"
    )
    attached = add_child(controller, "AttachedDevice", type="HardDisk", hotpluggable="false", port="0", device="0")
    add_child(attached, "Image", uuid=_braced(disk.identity))


def _braced(identity: UUID) -> str:
    return f"{{{identity}}}"
