"""Snapshots of running guests: taken with their memory and gone back to in place, or of their disk, to clone it.

All are for guests with a qcow2 disk of their own. A snapshot with memory is stored within that disk. A disk is
frozen from outside: QEMU goes on in a new file above it, and what it leaves is what a power cut would leave,
consistent once the file system's journal has been replayed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from runtime.errors import TestbedError, UsageError
from testbed.host.libvirt_library import load_libvirt
from testbed.qemu.account import Account
from testbed.qemu.domain import name_disk
from vm_images.qcow2 import clone

# The monitor splits and quotes its commands in ways of its own, differently for taking and for going back.
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_LETTERS = "use letters, digits, dots, dashes and underscores"


def snapshot_xml(name: str) -> str:
    """Return a snapshot of everything, memory included, within the guest's disk (formatsnapshot.html)."""
    root = Element("domainsnapshot")
    SubElement(root, "name").text = name
    return ElementTree.tostring(root, encoding="unicode")


def freeze_xml(continued: Path) -> str:
    """Return a snapshot of the disk alone: it stays as it is, and the guest goes on in the new file ``continued``."""
    root = Element("domainsnapshot")
    disks = SubElement(root, "disks")
    disk = SubElement(disks, "disk", name=name_disk(0), snapshot="external")
    SubElement(disk, "driver", type="qcow2")
    SubElement(disk, "source", file=str(continued))
    return ElementTree.tostring(root, encoding="unicode")


def list_snapshots(domain: Any) -> tuple[str, ...]:
    """Return the snapshots that were taken of a running domain (virDomain)."""
    return tuple(sorted(domain.snapshotListNames()))


def take_snapshot(domain: Any, name: str) -> None:
    """Save memory, devices and disk as ``name``; the guest stands still meanwhile.

    Raises UsageError for a name that is taken or has other than letters, digits and ``.-_``, TestbedError when its
    disk is not one of its own.
    """
    libvirt = load_libvirt()
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"take snapshot {name!r} of {domain.name()}: QEMU's monitor could not read that name", _LETTERS
        )
    if name in list_snapshots(domain):
        raise UsageError(f"take snapshot {name} of {domain.name()}: there is one of that name", "choose another name")
    try:
        domain.snapshotCreateXML(snapshot_xml(name), 0)
    except libvirt.libvirtError as error:
        hint = "snapshots need a guest that runs, with a qcow2 disk of its own"
        raise TestbedError(f"take snapshot {name} of {domain.name()}: {error}", hint) from error


def revert(domain: Any, name: str) -> None:
    """Put a running guest back into the state that ``name`` remembers, memory and disk, without a new QEMU.

    Libvirt's own way back ends QEMU and starts another, which is in no cgroup of the instance and has no console;
    QEMU itself goes back within the process. Raises UsageError for an unknown name, TestbedError with QEMU's words.
    """
    _require(domain, name, "revert to")
    if problem := _monitor(domain, f"loadvm {name}"):
        raise TestbedError(f"revert {domain.name()} to snapshot {name}: {problem}", "start the guest anew")


def drop_snapshot(domain: Any, name: str) -> None:
    """Forget a snapshot and free its space in the disk. Raises UsageError for an unknown name."""
    libvirt = load_libvirt()
    _require(domain, name, "drop")
    try:
        domain.snapshotLookupByName(name).delete(0)
    except libvirt.libvirtError as error:
        raise TestbedError(f"drop snapshot {name} of {domain.name()}: {error}") from error


def clone_disk(domain: Any, disk: Path, continued: Path, target: Path, account: Account) -> None:
    """Make ``target`` a disk with what a running guest's ``disk`` holds now; neither guest sees the other's writes.

    The guest goes on in the new file ``continued``, which is made for its ``account``; ``disk`` stays, below both,
    for the accounts of both to read, and must be kept as long as either. Snapshots with memory stay behind in it.
    Raises TestbedError with libvirt's words.
    """
    libvirt = load_libvirt()
    flags = (
        libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
        | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
    )
    try:
        clone(disk, "qcow2", continued, size_bytes=domain.blockInfo(name_disk(0))[0])
        account.give(continued)
        account.share(disk)
        domain.snapshotCreateXML(freeze_xml(continued), flags)
    except libvirt.libvirtError as error:
        hint = "only a guest that runs, with a qcow2 disk of its own, can be cloned"
        raise TestbedError(f"freeze the disk of {domain.name()}: {error}", hint) from error
    clone(disk, "qcow2", target)


def _require(domain: Any, name: str, verb: str) -> None:
    names = list_snapshots(domain)
    if name not in names:
        taken = ", ".join(names) or "none"
        raise UsageError(f"{verb} snapshot {name} of {domain.name()}: there is none", f"it has: {taken}")


def _monitor(domain: Any, command: str) -> str:
    """Return what QEMU's monitor answers to a command; nothing is good news."""
    libvirt = load_libvirt()
    import libvirt_qemu

    try:
        answer: str = libvirt_qemu.qemuMonitorCommand(domain, command, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
    except libvirt.libvirtError as error:
        raise TestbedError(f"tell QEMU of {domain.name()} to {command}: {error}") from error
    return answer.strip()
