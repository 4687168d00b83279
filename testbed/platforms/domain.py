"""The libvirt domain of one guest: pure data in, XML out (formatdomain.html)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from runtime.errors import UsageError
from runtime.spec import Resources

_QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
# The environment variable by which the launcher, in QEMU's place, finds its plan.
PLAN_VARIABLE = "TESTBED_PLAN"
# Below, Debian 12's kernel ends before its first process (measured: 64 MiB does not boot, 80 MiB does): its
# image alone takes 50 MiB while it starts.
_LEAST_MEMORY_BYTES = 80 << 20


@dataclass(frozen=True)
class Domain:
    """What a guest's virtual hardware is.

    ``machine`` is libvirt's machine type, ``accelerator`` is ``kvm`` or ``tcg``; ``mac`` None: no network card.
    """

    name: str
    machine: str
    accelerator: str
    memory_bytes: int
    vcpus: int
    emulator: Path
    emulator_plan: Path
    kernel: Path
    initrd: Path
    command_line: str
    disk: Path
    console_socket: Path
    bridge: str
    mac: str | None
    daemon: bool = False
    tap: str | None = None


def vcpu_count(resources: Resources, host_cpus: int) -> int:
    """Enough virtual processors for the limit; the rest of a fraction is taken off by the cgroup's quota."""
    return max(1, math.ceil(resources.cpus)) if resources.cpus is not None else host_cpus


def guest_memory_bytes(resources: Resources, service: str) -> int:
    """The guest's RAM: exactly the limit. Raises UsageError without one, or with too little for a kernel."""
    hint = "set deploy.resources.limits.memory in compose.yaml"
    if resources.memory_bytes is None:
        raise UsageError(
            f"service {service} has no memory limit, and a virtual machine needs one",
            hint,
        )
    if resources.memory_bytes < _LEAST_MEMORY_BYTES:
        raise UsageError(
            f"service {service}: {resources.memory_bytes >> 20} MiB of memory are too little for a virtual machine, "
            f"which needs {_LEAST_MEMORY_BYTES >> 20} MiB",
            hint,
        )
    return resources.memory_bytes


def _child(parent: Element, tag: str, text: str = "", **attributes: str) -> Element:
    element = SubElement(parent, tag, attributes)
    if text:
        element.text = text
    return element


def _add_disk(devices: Element, domain: Domain) -> None:
    disk = _child(devices, "disk", type="file", device="disk")
    _child(disk, "driver", name="qemu", type="raw")
    _child(disk, "source", file=str(domain.disk))
    _child(disk, "target", dev="vda", bus="virtio")
    _child(disk, "readonly")
    _child(disk, "shareable")
    _on_root_bus(disk, 1)


def _add_interface(devices: Element, domain: Domain) -> None:
    if domain.mac is None or domain.tap is not None:
        return
    interface = _child(devices, "interface", type="bridge")
    _child(interface, "mac", address=domain.mac)
    _child(interface, "source", bridge=domain.bridge)
    _child(interface, "model", type="virtio")
    _child(interface, "rom", enabled="no")
    _on_root_bus(interface, 2)


def _add_own_tap(extra: Element, domain: Domain) -> None:
    """The same network card without libvirt, which would look for its tap in its daemon's network namespace."""
    if domain.mac is None or domain.tap is None:
        return
    card = f"virtio-net-pci,netdev=lab,mac={domain.mac},bus=pcie.0,addr=0x2,romfile="
    for argument in (
        *("-netdev", f"tap,id=lab,ifname={domain.tap},script=no,downscript=no"),
        *("-device", card),
    ):
        _child(extra, "qemu:arg", value=argument)


def _run_as_root(root: Element) -> None:
    """Of a daemon's, whose own choice of user would keep our launcher out of cgroups and namespaces."""
    label = _child(root, "seclabel", type="static", model="dac", relabel="no")
    _child(label, "label", "+0:+0")


def _on_root_bus(device: Element, slot: int) -> None:
    """Straight on the root bus: by itself libvirt puts a hot-plug port before each device, for the guest to probe."""
    _child(device, "address", type="pci", domain="0", bus="0", slot=str(slot), function="0")


def domain_xml(domain: Domain) -> str:
    """The domain's XML: a q35 machine with a disk, a network card, a serial console, and nothing else.

    The guest's end, whatever it is, ends QEMU.
    """
    root = Element("domain", {"type": "kvm" if domain.accelerator == "kvm" else "qemu", "xmlns:qemu": _QEMU_NAMESPACE})
    _child(root, "name", domain.name)
    _child(root, "memory", str(domain.memory_bytes), unit="b")
    _child(root, "vcpu", str(domain.vcpus))
    system = _child(root, "os")
    _child(system, "type", "hvm", arch="x86_64", machine=domain.machine)
    _child(system, "kernel", str(domain.kernel))
    _child(system, "initrd", str(domain.initrd))
    _child(system, "cmdline", domain.command_line)
    features = _child(root, "features")
    _child(features, "acpi")
    _child(features, "apic")
    _child(root, "cpu", mode="maximum")
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        _child(root, event, "destroy")
    devices = _child(root, "devices")
    _child(devices, "emulator", str(domain.emulator))
    _child(devices, "controller", type="usb", model="none")
    _add_disk(devices, domain)
    _add_interface(devices, domain)
    serial = _child(devices, "serial", type="unix")
    _child(serial, "source", mode="connect", path=str(domain.console_socket))
    _child(serial, "target", type="isa-serial", port="0")
    _child(devices, "memballoon", model="none")
    if domain.daemon:
        _run_as_root(root)
    extra = _child(root, "qemu:commandline")
    _add_own_tap(extra, domain)
    _child(extra, "qemu:env", name=PLAN_VARIABLE, value=str(domain.emulator_plan))
    # With this libvirt asks a started QEMU about each CPU feature by itself, four hundred questions in 0.3 s.
    capabilities = _child(root, "qemu:capabilities")
    _child(capabilities, "qemu:del", capability="cpu-unavailable-features")
    return ElementTree.tostring(root, encoding="unicode")
