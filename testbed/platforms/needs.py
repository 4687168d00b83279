"""What each kind of virtual machine needs of a host, and whether it is there: programs, kernels, switches of Linux."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from runtime.errors import PrerequisiteError, TestbedError
from runtime.images.store import Store
from testbed.host import ksm, kvm
from testbed.host.facts import read_lines
from testbed.host.kvm import Kvm
from testbed.qemu.accelerator import HARDWARE_HINT, Attempt, at_hardware_speed, read_last_attempts
from testbed.qemu.memory import HUGE_PAGE_BYTES, OVERCOMMIT
from testbed.qemu.variants import Variant
from vm_images.cloud import cloud_inputs, disk_key
from vm_images.container_host import REFERENCE
from vm_images.kernel import GuestKernel, find_stored_guest_kernel
from vm_images.minimal_kernel import find_stored_minimal_kernel

_QEMU = "qemu-system-x86_64"
_HUGE_PAGES = Path(f"/sys/kernel/mm/hugepages/hugepages-{HUGE_PAGE_BYTES >> 10}kB")
_INSTALL = {
    _QEMU: "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mkfs.erofs": "erofs-utils",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
}


class Need(Struct, frozen=True):
    """One thing that is needed, in ``words`` that say how it is, and what to do when it is not ``there``."""

    words: str
    there: bool
    fix: str = ""


class Host(Struct, frozen=True):
    """What a host has of it all. Problems are empty where there is none; ``machines`` None: QEMU does not say."""

    programs: frozenset[str] = frozenset()
    machines: frozenset[str] | None = None
    kernel: GuestKernel | None = None
    minimal: GuestKernel | None = None
    cloud_made: bool = False
    container_host_made: bool = False
    kvm_problem: str = ""
    ksm_problem: str = ""
    hugepages_problem: str = ""


def look_at_host(store: Path) -> Host:
    """Look at this host, and at what is stored below ``store``; nothing is made."""
    guest_root = store / "guest"
    try:
        minimal = find_stored_minimal_kernel(guest_root)
    except PrerequisiteError:
        minimal = None
    try:
        kernel = find_stored_guest_kernel(guest_root)
    except PrerequisiteError:
        kernel = None
    return Host(
        frozenset(name for name in _INSTALL if shutil.which(name)),
        _read_machines(),
        kernel,
        minimal,
        _is_cloud_made(guest_root),
        _has_image(store),
        find_kvm_problem(kvm.detect(), read_last_attempts(guest_root)),
        _find_ksm_problem(),
        find_hugepages_problem(),
    )


def _read_machines() -> frozenset[str] | None:
    lines = read_lines(_QEMU, "-machine", "help")
    return frozenset(line.split()[0] for line in lines[1:] if line.split()) if lines else None


def _is_cloud_made(guest_root: Path) -> bool:
    try:
        return (guest_root / f"cloud-{disk_key(cloud_inputs())[:24]}").exists()
    except TestbedError:
        return False


def _has_image(store: Path) -> bool:
    try:
        Store(store / "images").get(REFERENCE)
    except (TestbedError, OSError):
        return False
    return True


def find_kvm_problem(found: Kvm, last: Sequence[Attempt]) -> str:
    """Return why no guest runs on hardware, as far as that is known without booting one: by the device, and by what
    worked when it was tried last; empty when it does, or when nothing has been tried."""
    if found.kind in ("none", "pvm") or not last:
        return found.words if found.kind in ("none", "pvm") else ""
    worked = next((one for one in last if one.accelerator == "kvm"), None)
    if worked is None:
        return "no guest booted under it when one was tried last"
    return "" if at_hardware_speed(worked, last) else "it is no faster than QEMU's translator"


def _find_ksm_problem() -> str:
    try:
        ksm.require()
    except PrerequisiteError as error:
        return error.message
    return ""


def find_hugepages_problem() -> str:
    """Return why a guest's RAM cannot be made of huge pages when it starts; empty when it can."""
    if not _HUGE_PAGES.is_dir():
        return "the kernel has no huge pages of 2 MiB"
    if not os.access(OVERCOMMIT, os.W_OK):
        return f"{OVERCOMMIT} cannot be written to"
    return ""


def find_needs(variant: Variant, host: Host) -> tuple[Need, ...]:
    """Return what machines of the variant need, besides an accelerator, libvirt and a network of the run's own."""
    needs = [_need_program(_QEMU, host)]
    known = host.machines is None or any(
        name == variant.machine or name.startswith(f"pc-{variant.machine}") for name in host.machines
    )
    needs.append(Need(f"QEMU's machine {variant.machine}", known, "" if known else "install a QEMU that has it"))
    needs.append(_need_kernel(variant, host))
    tools = {"erofs": ["mkfs.erofs"], "ext4": ["mke2fs", "debugfs"]}[variant.disk.file_system]
    tools += ["qemu-img"] if variant.disk.format == "qcow2" or variant.boot == "cloud" else []
    tools += ["mmdebstrap", "mke2fs"] if variant.boot == "cloud" else []
    needs += [_need_program(name, host) for name in dict.fromkeys(tools)]
    if variant.inside == "containers":
        made = "built" if host.container_host_made else "built by the first run, in a minute"
        needs.append(Need(f"the system inside ({made})", True))
    if variant.accelerator == "kvm":
        needs.append(_need("virtualisation in hardware", host.kvm_problem, HARDWARE_HINT))
    if variant.memory.ksm:
        needs.append(_need("KSM", host.ksm_problem, "run as root, on a kernel with CONFIG_KSM"))
    if variant.memory.hugepages:
        needs.append(_need("huge pages of 2 MiB", host.hugepages_problem, "run as root, with CONFIG_HUGETLBFS"))
    return tuple(needs)


def _need(what: str, problem: str, fix: str) -> Need:
    return Need(f"{what}: {problem}" if problem else what, not problem, fix if problem else "")


def _need_program(name: str, host: Host) -> Need:
    there = name in host.programs
    return Need(name if there else f"{name} is not on the PATH", there, "" if there else f"install {_INSTALL[name]}")


def _need_kernel(variant: Variant, host: Host) -> Need:
    if variant.boot == "cloud":
        made = "made" if host.cloud_made else "made by the first run, in minutes"
        return Need(f"a stock system's disk with its own kernel ({made})", True)
    if variant.kernel == "minimal":
        if host.minimal is None:
            return Need("the minimal kernel is not built", False, "run ./invoke images.kernel, once")
        return Need(f"the minimal kernel {host.minimal.release}", True)
    if host.kernel is None:
        return Need("the distribution's kernel (downloaded by the first run)", True)
    return Need(f"the kernel {host.kernel.release}", True)
