"""The kinds of virtual machine that can be compared, as data: each is a platform by its own name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

from msgspec import Struct

from runtime.errors import UsageError
from vm_images.disk import FileSystem
from vm_images.guest import KernelName
from vm_images.kernel import GuestKernel
from vm_images.kernel_options import Machine
from vm_images.page_cache import CacheMode
from vm_images.qcow2 import DiskFormat


class Memory(Struct, frozen=True):
    """How the host manages a guest's RAM. All off: what the guest has once touched stays its own.

    What is given back page by page may stay charged for all that: the host keeps a huge page (it backs guests with
    them, transparently) until all of it is free or memory is short. A guest's kernel reports free blocks of 2 MiB, and
    only while it has 64 MiB free (Linux, mm/page_reporting.c).

    ``balloon``: the host can ask the guest to give pages back. ``free_page_reporting``: the guest reports by itself
    which pages are free, through the balloon device. ``ksm``: the host merges equal pages while such a guest runs.
    ``hugepages``: the RAM is made of huge pages, which are the guest's from its start on.
    """

    balloon: bool = False
    free_page_reporting: bool = False
    ksm: bool = False
    hugepages: bool = False

    @property
    def has_balloon(self) -> bool:
        """Whether the machine has the balloon device; free pages are reported through it."""
        return self.balloon or self.free_page_reporting


class Disk(Struct, frozen=True):
    """How a guest's disk is stored and read.

    ``format``: ``raw`` is the image's file system itself, shared by all guests and read-only, with what the guest
    writes on a tmpfs of its own; ``qcow2`` is a copy-on-write overlay of the guest's own above it. ``cache`` is
    the mode of QEMU's page cache use (``writeback`` is QEMU's default, ``none`` bypasses the host's cache). Raises
    UsageError for a writable disk with a file system that cannot be written.
    """

    format: DiskFormat = "raw"
    cache: CacheMode = "writeback"
    file_system: FileSystem = "erofs"

    def __post_init__(self) -> None:
        if self.format == "qcow2" and self.file_system == "erofs":
            raise UsageError("a guest cannot write to erofs, which a qcow2 disk is for", "choose ext4 for it")


class Variant(Struct, frozen=True):
    """A named kind of virtual machine; the defaults are those of ``vm``.

    ``machine`` is libvirt's machine type, ``bus`` where its virtio devices are. ``guest_per`` says how many machines
    a copy of the application gets: one a service, or one for all of them. ``boot``: ``direct`` loads our kernel and
    initial RAM disk, ``cloud`` a stock distribution from its disk. ``inside``: what runs a service in the guest, a
    plain ``process`` or ``containers`` of our own runtime. ``start``: ``cold``, ``pooled`` when all but the workload's
    exec has been done before, or ``restored`` from the saved state of a guest that has booted before. ``uri`` is
    libvirt's connection. ``kernel`` is the distribution's, our minimal one, or one of somebody's own.
    ``emulator_cpus`` is what QEMU's own threads may use besides the services' limit of processor time. ``pinned``: each
    virtual processor runs on one of the host's, and the guest is shown the topology and the caches of those.
    ``accelerator`` is what makes it the machine that it is, whatever the run's is: ``kvm`` on hardware, or the
    translator that goes instruction by instruction; empty for the run's. With ``commands`` a guest has a port through
    which more programs are executed in it, if it ``has_port``.
    """

    name: str
    machine: str = "q35"
    guest_per: Literal["service", "application"] = "service"
    bus: Literal["pci", "mmio"] = "pci"
    boot: Literal["direct", "cloud"] = "direct"
    inside: Literal["process", "containers"] = "process"
    start: Literal["cold", "pooled", "restored"] = "cold"
    memory: Memory = Memory()
    disk: Disk = Disk()
    uri: str = "qemu:///embed"
    kernel: KernelName | GuestKernel = "debian"
    emulator_cpus: float = 0.0
    pinned: bool = False
    accelerator: Literal["", "kvm", "tcg-one-by-one"] = ""
    commands: bool = False

    @property
    def has_port(self) -> bool:
        """Whether its guests have a port for commands: they are asked for it, and boot anew, with our launcher."""
        return self.commands and self.boots_kernel and self.start == "cold"

    @property
    def boots_kernel(self) -> bool:
        """Whether QEMU loads the guest's kernel; else it comes from the guest's own disk."""
        return self.boot == "direct"

    @property
    def kernel_needs(self) -> Machine:
        """What it asks of its guest's kernel."""
        return Machine(
            bus=self.bus,
            file_system=self.disk.file_system,
            writable_disk=self.disk.format == "qcow2",
            balloon=self.memory.balloon,
            reporting=self.memory.free_page_reporting,
            containers=self.inside == "containers",
            port=self.has_port,
        )


# What can be chosen freely for each kind of guest. A saved guest's RAM is a file, and it cannot be asked for
# what it has free: its console takes plans. The RAM of one that is a host of containers is no whole number of huge
# pages.
_ALLOWED: Mapping[str, tuple[str, ...]] = {
    "a stock system": ("balloon", "free_page_reporting", "ksm", "hugepages"),
    "containers in a guest": ("balloon", "free_page_reporting", "ksm"),
    "a restored guest": ("kernel", "bus", "ksm"),
    "a pooled guest": ("disk", "kernel", "bus", "ksm", "hugepages"),
    "one guest for all services": ("kernel", "bus", "balloon", "free_page_reporting", "ksm", "hugepages"),
}


def find_refusal(variant: Variant) -> str:
    """Return why no platform implements the variant; empty when one does."""
    wanted = {
        "a stock system": variant.boot == "cloud",
        "containers in a guest": variant.inside == "containers",
        "a restored guest": variant.start == "restored",
        "a pooled guest": variant.start == "pooled",
    }
    kinds = [kind for kind, is_wanted in wanted.items() if is_wanted]
    pod = variant.guest_per == "application" and variant.inside == "process"
    if len(kinds) > 1 or (kinds and pod):
        return " and ".join([*kinds, *(["one guest for all services"] if pod else [])]) + " exclude each other"
    if (variant.machine, variant.bus) not in (("q35", "pci"), ("microvm", "mmio")):
        return f"the machine {variant.machine} has no {variant.bus} bus"
    kind = kinds[0] if kinds else "one guest for all services" if pod else ""
    allowed = _ALLOWED.get(kind)
    if allowed is None:
        return ""
    usual = Variant(variant.name, guest_per=variant.guest_per)
    others = [name for name in ("disk", "kernel", "bus") if name not in allowed]
    changed = [name for name in others if getattr(variant, name) != getattr(usual, name)]
    if variant.pinned and kind:
        changed.append("pinned")
    unusual = [name for name in ("balloon", "free_page_reporting", "ksm", "hugepages") if getattr(variant.memory, name)]
    changed += [f"memory.{name}" for name in unusual if name not in allowed]
    if variant.inside == "containers" and variant.guest_per != "application":
        changed.append("guest_per")
    return f"{kind} is not made with another {', '.join(changed)}" if changed else ""


def index_by_name(variants: Iterable[Variant]) -> Mapping[str, Variant]:
    """Return the variants by their names, in order, read-only. Raises ValueError when two have the same name."""
    variants_by_name: dict[str, Variant] = {}
    for variant in variants:
        if variant.name in variants_by_name:
            raise ValueError(f"two kinds of virtual machine are called {variant.name}")
        variants_by_name[variant.name] = variant
    return MappingProxyType(variants_by_name)


VARIANTS = index_by_name(
    (
        # SeaBIOS enters the kernel by PVH. Measured with q35, qboot is there 20 ms earlier, of 1.5 s, and no guest runs
        # sooner.
        Variant("vm"),
        Variant("vm-pooled", start="pooled"),
        Variant("vm-restored", start="restored"),
        # QEMU's smallest machine, made after Firecracker's: no PCI, so none to probe, and virtio devices at fixed
        # addresses. libvirt 9 defines it, without knowing it: the addresses of the devices have to be given. ACPI
        # stays, since Debian's kernel finds virtio-mmio devices in its tables only, and so do the interrupt
        # controller and the timer. It has no other clock to calibrate by: see testbed.qemu.clock.
        Variant("vm-micro", machine="microvm", bus="mmio"),
        Variant("vm-pod", guest_per="application"),
        Variant("vm-cloud", boot="cloud"),
        Variant("vm-disk", disk=Disk("qcow2", file_system="ext4")),
        Variant("vm-minimal", kernel="minimal"),
        Variant("vm-balloon", memory=Memory(balloon=True)),
        Variant("vm-reporting", memory=Memory(free_page_reporting=True)),
        Variant("vm-ksm", memory=Memory(ksm=True)),
        Variant("vm-hugepages", memory=Memory(hugepages=True)),
        # As Felter et al. (2014) tuned theirs: processors pinned, and their topology shown to the guest.
        Variant("vm-tuned", pinned=True),
        Variant("vm-containers", guest_per="application", inside="containers"),
        # Of the ladder: SoftPC's way to run a machine, and that of VT-x and AMD-V.
        Variant("emulated-1988", accelerator="tcg-one-by-one"),
        Variant("hardware-2006", accelerator="kvm"),
    )
)
