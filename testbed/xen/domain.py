"""The libvirt domain of one paravirtual guest of Xen's: pure data in, XML out (formatdomain.html, drvxen.html)."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from msgspec import Struct

from testbed.qemu.domain import add_child

# As vm_images.guest has it for machines of QEMU's, with Xen's console in place of the serial port.
COMMAND_LINE = "earlyprintk=xen console=hvc0 quiet panic=-1 cryptomgr.notests"


class Domain(Struct, frozen=True):
    """A guest: ``disk`` is a block device that it reads only; ``script`` brings the other end of its network card to
    the ``bridge``; ``mac`` None: no network card."""

    name: str
    memory_bytes: int
    vcpus: int
    kernel: Path
    initrd: Path
    disk: Path
    bridge: str
    script: Path
    mac: str | None


def _add_devices(root: Element, domain: Domain) -> None:
    devices = add_child(root, "devices")
    disk = add_child(devices, "disk", type="block", device="disk")
    add_child(disk, "driver", name="phy", type="raw")
    add_child(disk, "source", dev=str(domain.disk))
    add_child(disk, "target", dev="xvda", bus="xen")
    add_child(disk, "readonly")
    add_child(disk, "shareable")
    if domain.mac is not None:
        interface = add_child(devices, "interface", type="bridge")
        add_child(interface, "mac", address=domain.mac)
        add_child(interface, "source", bridge=domain.bridge)
        add_child(interface, "script", path=str(domain.script))
    console = add_child(devices, "console", type="pty")
    add_child(console, "target", type="xen", port="0")


def domain_xml(domain: Domain) -> str:
    """Return the domain's XML. The guest's end, whatever it is, ends the domain."""
    root = Element("domain", type="xen")
    add_child(root, "name", domain.name)
    add_child(root, "memory", str(domain.memory_bytes), unit="b")
    add_child(root, "vcpu", str(domain.vcpus))
    system = add_child(root, "os")
    add_child(system, "type", "linux", arch="x86_64", machine="xenpv")
    add_child(system, "kernel", str(domain.kernel))
    add_child(system, "initrd", str(domain.initrd))
    add_child(system, "cmdline", COMMAND_LINE)
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        add_child(root, event, "destroy")
    _add_devices(root, domain)
    return ElementTree.tostring(root, encoding="unicode")


def find_terminal(xml: str) -> str:
    """Return the path of a running domain's console, from its XML; "" when it has none."""
    console = ElementTree.fromstring(xml).find("./devices/console/source")  # libvirt wrote it
    return console.get("path", "") if console is not None else ""
