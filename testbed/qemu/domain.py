"""The libvirt domain of one guest: pure data in, XML out (formatdomain.html)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from msgspec import Struct
from msgspec.structs import astuple

from runtime.errors import UsageError
from runtime.spec import Resources
from testbed.qemu.pinning import Pinning
from testbed.qemu.variants import Memory
from vm_images.page_cache import CacheMode, io_mode
from vm_images.plans.guest import SHARE_TAG

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
# The environment variable by which the launcher, in QEMU's place, finds its plan.
PLAN_VARIABLE = "TESTBED_PLAN"
PORT_NAME = "testbed.commands"
# Below, Debian 12's kernel ends before its first process (measured: 64 MiB does not boot, 80 MiB does): its
# image alone takes 50 MiB while it starts.
_LEAST_MEMORY_BYTES = 80 << 20
_MEMORY_HINT = "set deploy.resources.limits.memory in compose.yaml"
# Every other descriptor's number may be one of those that libvirt gives to QEMU.
_STANDARD_INPUT = "/proc/self/fd/0"


class Ram(Struct, frozen=True):
    """A file that is a guest's RAM: an open ``descriptor`` of ours, which becomes QEMU's standard input.

    What the guest writes goes into the file when it is ``shared``; else into pages of the guest's own, and the file
    stays as it is, for others to begin with.
    """

    descriptor: int
    shared: bool


class Domain(Struct, frozen=True):
    """What a guest's virtual hardware is.

    ``machine`` is libvirt's machine type, ``bus`` that of its devices, ``accelerator`` is ``kvm``, ``tcg``,
    ``tcg-single`` or ``tcg-one-by-one``, ``cpu`` its CPU mode or model; ``mac`` None: no network card. ``raw`` disks
    are shared by guests and read-only, ``qcow2`` ones the guest's own; ``cache`` is how QEMU uses the host's page cache
    for them. A guest without ``kernel`` boots nothing: QEMU waits for the ``incoming`` state of a saved one.

    ``tap`` is the host's end of the network card, which is ours to make when a ``daemon`` starts QEMU. ``unlabelled``
    are the security models, as libvirt calls them, that leave QEMU alone. With a ``port_socket`` the machine has a port
    for commands, whose other end listens there; at ``share_socket`` listens what lends it directories of the host. With
    a ``pinning`` each virtual processor runs on one of the host's, and the guest is shown their topology and caches.
    """

    name: str
    machine: str
    bus: str
    accelerator: str
    cpu: str
    memory_bytes: int
    vcpus: int
    emulator: Path
    emulator_plan: Path
    kernel: Path | None
    initrd: Path
    command_line: str
    disks: tuple[Path, ...]
    console_socket: Path
    bridge: str
    mac: str | None
    ram: Ram | None = None
    memory: Memory = Memory()
    disk_format: str = "raw"
    cache: CacheMode = "writeback"
    daemon: bool = False
    tap: str = ""
    unlabelled: tuple[str, ...] = ()
    port_socket: Path | None = None
    pinning: Pinning | None = None
    share_socket: Path | None = None

    @property
    def incoming(self) -> bool:
        return self.kernel is None


def count_vcpus(resources: Resources, host_cpus: int) -> int:
    """Return enough virtual processors for the limit; the cgroup's quota takes the rest of a fraction off."""
    return max(1, math.ceil(resources.cpus)) if resources.cpus is not None else host_cpus


def _memory_limit_bytes(resources: Resources, service: str) -> int:
    if resources.memory_bytes is None:
        raise UsageError(f"service {service} has no memory limit, and a virtual machine needs one", _MEMORY_HINT)
    return resources.memory_bytes


def compute_guest_memory(resources: Resources, service: str) -> int:
    """Return the guest's RAM: exactly the limit. Raises UsageError without one, or with too little for a kernel."""
    limit_bytes = _memory_limit_bytes(resources, service)
    if limit_bytes < _LEAST_MEMORY_BYTES:
        raise UsageError(
            f"service {service}: {limit_bytes >> 20} MiB of memory are too little for a virtual machine, "
            f"which needs {_LEAST_MEMORY_BYTES >> 20} MiB",
            _MEMORY_HINT,
        )
    return limit_bytes


def sum_resources(services: Mapping[str, Resources]) -> Resources:
    """Return what services that share a machine need together: the sum of memory, and of processors unless one has no
    limit.

    Their limits of tasks are the guest's to hold, each by itself. Raises UsageError for one without a limit of memory.
    """
    cpus = [one.cpus for one in services.values()]
    return Resources(
        memory_bytes=sum(_memory_limit_bytes(one, service) for service, one in services.items()),
        cpus=None if None in cpus else sum(filter(None, cpus)),
    )


def add_child(parent: Element, tag: str, text: str = "", **attributes: str) -> Element:
    """Add an element to ``parent``."""
    element = SubElement(parent, tag, attributes)
    if text:
        element.text = text
    return element


def name_disk(index: int) -> str:
    """Return what the guest and libvirt call its disk number ``index``, from 0. Raises UsageError when letters run
    out."""
    if index > 25:
        raise UsageError("a virtual machine has 26 disks at most, one for each image", "use fewer images, or vm")
    return f"vd{chr(ord('a') + index)}"


def _add_disks(devices: Element, domain: Domain) -> None:
    for index, path in enumerate(domain.disks):
        disk = add_child(devices, "disk", type="file", device="disk")
        add_child(disk, "driver", name="qemu", type=domain.disk_format, cache=domain.cache, io=io_mode(domain.cache))
        add_child(disk, "source", file=str(path))
        add_child(disk, "target", dev=name_disk(index), bus="virtio")
        if domain.disk_format == "raw":
            add_child(disk, "readonly")
            add_child(disk, "shareable")
        _put_on_bus(disk, domain.bus, 1 + index)


def _add_interface(devices: Element, domain: Domain) -> None:
    if domain.mac is None or domain.daemon:
        return
    interface = add_child(devices, "interface", type="bridge")
    add_child(interface, "mac", address=domain.mac)
    add_child(interface, "source", bridge=domain.bridge)
    add_child(interface, "target", dev=domain.tap)
    add_child(interface, "model", type="virtio")
    add_child(interface, "driver", name="qemu")  # no vhost-net: a daemon's guests, whose card is ours to add, have none
    if domain.bus == "pci":
        add_child(interface, "rom", enabled="no")
    _put_on_bus(interface, domain.bus, 1 + len(domain.disks))


def _add_memory_backing(root: Element, memory: Memory, *, shared: bool) -> None:
    """Describe the guest's RAM, which is ``shared`` with whoever lends it directories. By itself QEMU lets KSM merge
    all guests' pages; a memfd needs no hugetlbfs to be mounted."""
    backing = SubElement(root, "memoryBacking")
    if memory.hugepages:
        add_child(add_child(backing, "hugepages"), "page", size="2", unit="M")
    if memory.hugepages or shared:
        add_child(backing, "source", type="memfd")
    if not memory.ksm:
        add_child(backing, "nosharepages")
    if shared:
        add_child(backing, "access", mode="shared")
    if not len(backing):
        root.remove(backing)


def _add_balloon(devices: Element, domain: Domain) -> None:
    if not domain.memory.has_balloon:
        add_child(devices, "memballoon", model="none")
        return
    reporting = "on" if domain.memory.free_page_reporting else "off"
    balloon = add_child(devices, "memballoon", model="virtio", freePageReporting=reporting)
    _put_on_bus(balloon, domain.bus, 2 + len(domain.disks))


def _add_port(devices: Element, domain: Domain) -> None:
    """Add the port for commands; its name is for who has udev."""
    if domain.port_socket is None:
        return
    controller = add_child(devices, "controller", type="virtio-serial", index="0", ports="2")
    _put_on_bus(controller, domain.bus, 3 + len(domain.disks))
    channel = add_child(devices, "channel", type="unix")
    add_child(channel, "source", mode="connect", path=str(domain.port_socket))
    add_child(channel, "target", type="virtio", name=PORT_NAME)
    add_child(channel, "address", type="virtio-serial", controller="0", bus="0", port="1")


def _add_shares(devices: Element, domain: Domain) -> None:
    """Add the device for the host's directories, which a process of ours serves: libvirt has nothing to start."""
    if domain.share_socket is None:
        return
    shares = add_child(devices, "filesystem", type="mount")
    add_child(shares, "driver", type="virtiofs", queue="1024")
    add_child(shares, "source", socket=str(domain.share_socket))
    add_child(shares, "target", dir=SHARE_TAG)
    _put_on_bus(shares, domain.bus, 4 + len(domain.disks))


def _add_own_tap(extra: Element, domain: Domain) -> None:
    """Add the same network card without libvirt, which would look for its tap in its daemon's network namespace."""
    if domain.mac is None or not domain.daemon:
        return
    device = (
        f"pci,netdev=lab,bus=pcie.0,addr={1 + len(domain.disks):#x},romfile="
        if domain.bus == "pci"
        else "device,netdev=lab"
    )
    card = f"virtio-net-{device},mac={domain.mac}"
    for argument in (
        *("-netdev", f"tap,id=lab,ifname={domain.tap},script=no,downscript=no"),
        *("-device", card),
    ):
        add_child(extra, "qemu:arg", value=argument)


def _add_labels(root: Element, domain: Domain) -> None:
    """Let QEMU start as root, until our launcher, in QEMU's stead, gives that up for the guest's account with all its
    groups: libvirt would leave it one. Whose the files are is not for libvirt to say."""
    label = add_child(root, "seclabel", type="static", model="dac", relabel="no")
    add_child(label, "label", "+0:+0")
    for model in domain.unlabelled:
        add_child(root, "seclabel", type="none", model=model)


def _put_on_bus(device: Element, bus: str, slot: int) -> None:
    """Put a device straight on the root bus: by itself libvirt puts a hot-plug port before each, for the guest to
    probe."""
    if bus == "mmio":
        add_child(device, "address", type="virtio-mmio")
        return
    add_child(device, "address", type="pci", domain="0", bus="0", slot=str(slot), function="0")


def _arguments(domain: Domain) -> list[str]:
    """Return what libvirt has no elements for. By itself it puts a RAM file where it likes, under a name of its own; of
    two -machine options QEMU takes each setting from the last that has it."""
    arguments = []
    if domain.ram is not None:
        shared = "on" if domain.ram.shared else "off"
        backend = f"memory-backend-file,id=ram,size={domain.memory_bytes},mem-path={_STANDARD_INPUT},share={shared}"
        arguments += ["-object", backend, "-machine", "memory-backend=ram"]
    if domain.machine == "microvm":
        # Under KVM it has no clock by itself, and its guest waits a second and more for one. What it has is the first
        # PC's timer and interrupt controller, and a guest of KVM's needs neither (QEMU's microvm.rst).
        legacy = ",pit=off,pic=off" if domain.accelerator == "kvm" else ""
        arguments += ["-machine", f"rtc=on{legacy}"]
    if domain.bus == "mmio":  # by itself QEMU has devices as before virtio 1.0 there, which virtiofsd does not serve
        arguments += ["-global", "virtio-mmio.force-legacy=false"]
    return [*arguments, "-incoming", "defer"] if domain.incoming else arguments


def _add_pinning(root: Element, pinning: Pinning | None) -> None:
    if pinning is None:
        return
    tune = add_child(root, "cputune")
    for virtual, processor in enumerate(pinning.processors):
        add_child(tune, "vcpupin", vcpu=str(virtual), cpuset=str(processor))


def _add_cpu(root: Element, domain: Domain) -> None:
    """Describe the processors. libvirt shows the host's caches only to a guest that has the host's processor."""
    named = domain.cpu not in ("host-passthrough", "maximum")
    cpu = add_child(root, "cpu", mode="custom" if named else domain.cpu)
    if named:
        add_child(cpu, "model", domain.cpu)
    if domain.pinning is not None:
        sockets, cores, threads = astuple(domain.pinning.topology)
        add_child(cpu, "topology", sockets=str(sockets), cores=str(cores), threads=str(threads))
        if domain.cpu == "host-passthrough":
            add_child(cpu, "cache", mode="passthrough")


def _add_kernel(system: Element, domain: Domain) -> None:
    if domain.kernel is not None:
        add_child(system, "kernel", str(domain.kernel))
        add_child(system, "initrd", str(domain.initrd))
        add_child(system, "cmdline", domain.command_line)


def domain_xml(domain: Domain) -> str:
    """Return the domain's XML: a machine with its disks, a network card, a serial console, and nothing else.

    The guest's end, whatever it is, ends QEMU.
    """
    root = Element("domain", {"type": "kvm" if domain.accelerator == "kvm" else "qemu", "xmlns:qemu": QEMU_NAMESPACE})
    add_child(root, "name", domain.name)
    add_child(root, "memory", str(domain.memory_bytes), unit="b")
    _add_memory_backing(root, domain.memory, shared=domain.share_socket is not None)
    add_child(root, "vcpu", str(domain.vcpus))
    _add_pinning(root, domain.pinning)
    system = add_child(root, "os")
    add_child(system, "type", "hvm", arch="x86_64", machine=domain.machine)
    _add_kernel(system, domain)
    features = add_child(root, "features")
    add_child(features, "acpi")
    add_child(features, "apic")
    _add_cpu(root, domain)
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        add_child(root, event, "destroy")
    devices = add_child(root, "devices")
    add_child(devices, "emulator", str(domain.emulator))
    add_child(devices, "controller", type="usb", model="none")
    _add_disks(devices, domain)
    _add_interface(devices, domain)
    serial = add_child(devices, "serial", type="unix")
    add_child(serial, "source", mode="connect", path=str(domain.console_socket))
    add_child(serial, "target", type="isa-serial", port="0")
    _add_balloon(devices, domain)
    _add_port(devices, domain)
    _add_shares(devices, domain)
    _add_labels(root, domain)
    extra = add_child(root, "qemu:commandline")
    _add_own_tap(extra, domain)
    for argument in _arguments(domain):
        add_child(extra, "qemu:arg", value=argument)
    add_child(extra, "qemu:env", name=PLAN_VARIABLE, value=str(domain.emulator_plan))
    # With this libvirt asks a started QEMU about each CPU feature by itself, four hundred questions in 0.3 s.
    capabilities = add_child(root, "qemu:capabilities")
    add_child(capabilities, "qemu:del", capability="cpu-unavailable-features")
    return ElementTree.tostring(root, encoding="unicode")
