"""The parts that all starts of a virtual machine platform share, once it is prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import Struct

from testbed.host.facts import format_version
from testbed.qemu.accelerator import Verdict, accelerator_options, reach_verdict, require_hardware
from testbed.qemu.account import Account
from testbed.qemu.connection import Connection
from testbed.qemu.disks import Disks
from testbed.qemu.emulator import read_qemu_version
from testbed.qemu.memory import describe_memory
from testbed.qemu.reader import ConsoleReader
from testbed.qemu.variants import Variant
from vm_images.guest import Guest


class Prepared(Struct, frozen=True):
    """The guest, the same with the modules to mount directories of the host, and what starts them. ``account`` is the
    one whose group those of the guests are in."""

    guest: Guest
    sharing: Guest
    disks: Disks
    verdict: Verdict
    qemu: Path
    emulator: Path
    libvirt: Connection
    reader: ConsoleReader
    account: Account

    @property
    def connection(self) -> Any:
        """libvirt's own connection (virConnect). Raises TestbedError when it is lost."""
        return self.libvirt.current()

    @property
    def qemu_arguments(self) -> tuple[str, ...]:
        """What QEMU is told before all that libvirt tells it: an accelerator that libvirt has no word for."""
        return accelerator_options(self.qemu, self.verdict.accelerator) if self.verdict.single_threaded else ()

    def pins(self, variant: Variant) -> bool:
        """Return whether each virtual processor is pinned: where one thread of QEMU is all of them, none can be."""
        return variant.pinned and not self.verdict.single_threaded


def choose_accelerator(variant: Variant, guest_root: Path, qemu: Path, guest: Guest, wanted: str) -> Verdict:
    """Return what machines of the variant run on: what makes them that kind, or else the run's ``wanted`` one.

    Raises PrerequisiteError when that does not work here.
    """
    if variant.accelerator == "kvm":
        return require_hardware(guest_root, qemu, guest, variant.name)
    return reach_verdict(guest_root, qemu, guest, variant.accelerator or wanted)


def describe_machine(variant: Variant, prepared: Prepared, command_line: str) -> dict[str, object]:
    """Return what the manifest records of a kind of machine."""
    kernel, verdict = prepared.guest.kernel, prepared.verdict
    return {
        "accelerator": verdict.accelerator,
        "accelerator_reason": verdict.reason,
        "accelerators_tried": {one.accelerator: one.reason for one in verdict.attempts},
        "cpu": verdict.cpu,
        "processors": "each pinned to one of the host's, whose topology it has" if prepared.pins(variant) else None,
        "kernel": kernel.release,
        "kernel_package": f"{kernel.package} {kernel.version}",
        "kernel_sha256": kernel.sha256,
        "emulator_cpus": variant.emulator_cpus or None,
        "command_line": command_line,
        "direct_boot": "PVH" if kernel.pvh else "bzImage",
        "machine": variant.machine,
        "commands": "through a virtio-serial port" if variant.has_port else None,
        "network": "virtio-net in QEMU itself, without vhost-net, on every connection",
        **prepared.disks.facts(),
        "memory": describe_memory(variant.memory),
        "qemu": read_qemu_version(prepared.qemu),
        "libvirt": format_version(prepared.connection.getLibVersion()),
        "connection": prepared.libvirt.uri,
        "exits": "counted by KVM" if verdict.accelerator == "kvm" else "none: emulated, without KVM",
        "accounts": "a user of its own for each guest's QEMU",
    }
