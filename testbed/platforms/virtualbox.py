"""The VirtualBox platform: services as guests of VirtualBox's, headless, by its own programs.

libvirt has a driver for VirtualBox, which knows none newer than 7.0, starts machines among all those of whoever its
daemon is, and counts nothing (vbox_tmpl.c, vbox_common.c); so VirtualBox's own programs define and start them. A
guest's kernel, its disk of the image's layers and the launcher as PID 1 are those of ``vm``, as is how it is limited:
its RAM by the machine's size, its processors by their number and the quota of its process's cgroup.

It boots as a PC does, by VirtualBox's BIOS and GRUB, from a disk of its own that its kernel does not see; its network
card is bridged, by VirtualBox's filter, with one end of a veth pair whose other end is a port of the lab's bridge.
"""

from __future__ import annotations

import os
import select
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import NoReturn
from uuid import UUID, uuid4

from msgspec import Struct

from runtime import network
from runtime.cgroups import Cgroup, hierarchies, require
from runtime.container import reap
from runtime.errors import PrerequisiteError, TestbedError, UsageError, WorkloadError
from runtime.files import read_bounded
from runtime.home import store_root
from runtime.images.model import Image
from runtime.lease import cgroup_name
from runtime.output import printable
from runtime.plan.encode import encode
from runtime.speed import factor, scale
from testbed import breakdown
from testbed.host.facts import EMULATOR, detect_hypervisor
from testbed.lab import Lab
from testbed.platforms.guests import Guests
from testbed.platforms.protocol import Instance
from testbed.qemu.accelerator import ON_EMULATED_HOST
from testbed.qemu.console import Console
from testbed.qemu.domain import compute_guest_memory, count_vcpus
from testbed.qemu.emulator import make_cgroup
from testbed.qemu.reader import ConsoleReader
from testbed.sample import HostReading
from testbed.sample import read_host as read_kernel
from testbed.scenario.model import Scenario
from testbed.virtualbox.card import add_card
from testbed.virtualbox.installation import HEADLESS, VirtualBox, require_virtualbox
from testbed.virtualbox.machine import Disk, Machine, machine_xml
from testbed.virtualbox.meter import WORDS, MachineMeter
from testbed.virtualbox.service import Service
from vm_images.boot_disk import DISK_BYTES, find_grub, make_own_part, make_shared_part
from vm_images.disk import ensure_disk
from vm_images.guest import COMMAND_LINE, Guest, ensure_guest, scsi_guest_of
from vm_images.initramfs import make_plan_archive
from vm_images.plans.guest import SCSI_DISK, guest_plan
from vm_images.vmdk import Extent, describe_disk

VIRTUALBOX = "virtualbox"
_TITLE = "VirtualBox"
_END_TIMEOUT_S, _START_TIMEOUT_S, _MEMINFO_TIMEOUT_S = 10.0, 60.0, 5.0
_LOOK_S = 0.002
_LONGEST = 1 << 20
# The end of its account of how a machine starts ("Starting virtual machine: 10%...20%").
_RUNS = b"100%"
# The /tmp that VirtualBox's processes see is the run's.
_HIDDEN = Path("/tmp")


class _Prepared(Struct, frozen=True):
    """What is the same for all guests: ``disks`` are files by the layers that they have, ``shared`` is what all boot
    disks begin with."""

    virtualbox: VirtualBox
    guest: Guest
    disks: Mapping[tuple[str, ...], Path]
    shared: Path
    reader: ConsoleReader


class _Running(Struct, frozen=True):
    """A started machine: its name, RAM, console and cgroup, what ends it and removes all that is its own, and when it
    was asked for and made."""

    name: str
    ram_bytes: int
    console: Console
    cgroup: Cgroup
    undo: ExitStack
    requested_ns: int
    created_ns: int


class VirtualBoxPlatform(Guests[_Running]):
    """Guests of VirtualBox's on the lab's bridge. ``scratch`` is the run's own directory."""

    name = VIRTUALBOX
    noun = "VirtualBox's guest"
    emulated = False
    virtual = True
    one_address = False

    def __init__(self, run_id: str, scratch: Path, lab: Lab) -> None:
        super().__init__()
        self._run_id = run_id
        self._lab = lab
        self._scratch = scratch / self.name
        self._undo = ExitStack()
        self._prepared: _Prepared | None = None
        self._service: Service | None = None
        self._started = count(1)
        lab.when_entered(self._serve)

    def _ready(self) -> _Prepared:
        if self._prepared is None:
            raise TestbedError(f"the platform {self.name} is used before it is prepared")
        return self._prepared

    @property
    def patience(self) -> float:
        return factor()

    @property
    def label(self) -> str:
        return f"{self.name}{ON_EMULATED_HOST if _is_emulated() else ''}"

    def facts(self) -> Mapping[str, object]:
        prepared = self._ready()
        kernel = prepared.guest.kernel
        return {
            "accelerator": "virtualbox",
            "hypervisor": f"{_TITLE} {prepared.virtualbox.version}",
            "kernel": kernel.release,
            "kernel_package": f"{kernel.package} {kernel.version}",
            "kernel_sha256": kernel.sha256,
            "command_line": COMMAND_LINE,
            "boot": "VirtualBox's BIOS, GRUB",
            "root": "erofs on a virtio SCSI disk below an overlay on tmpfs",
            "network": "a virtio network card, bridged by VirtualBox with a veth on the lab's bridge",
            "account": "root",
            "time_stamps": "the processor's, with an offset" if _is_emulated() else "as VirtualBox finds them steady",
            "counted": WORDS,
        }

    def prepare(self, scenario: Scenario, images: Mapping[str, Image]) -> None:
        """Prepare kernel and disks. Raises PrerequisiteError for whatever this host lacks."""
        for service in scenario.services:
            compute_guest_memory(service.resources, service.name)
        self.prepare_images(images.values())

    def prepare_images(self, images: Iterable[Image]) -> None:
        """Do what ``prepare`` does, for images alone."""
        require(hierarchies())
        virtualbox, root = require_virtualbox(), store_root() / "guest"
        if root.is_relative_to(_HIDDEN):
            raise PrerequisiteError(
                f"VirtualBox's processes have a {_HIDDEN} of their own, and the store is below it: {store_root()}",
                "have TESTBED_HOME elsewhere",
            )
        guest = scsi_guest_of(ensure_guest(root).kernel)
        with ExitStack() as undo:
            disks = {
                tuple(str(layer.path) for layer in image.layers): ensure_disk(root / "disks", image) for image in images
            }
            self._scratch.mkdir(mode=0o700, parents=True)  # plans hold the services' environment
            undo.callback(shutil.rmtree, self._scratch, ignore_errors=True)
            shared = self._scratch / "shared"
            shared.write_bytes(make_shared_part(find_grub(), guest.kernel.bzimage, guest))
            reader = ConsoleReader()
            undo.callback(reader.close)
            self._prepared = _Prepared(virtualbox, guest, disks, shared, reader)
            self._undo = undo.pop_all()

    def _serve(self) -> None:
        """Start VirtualBox's service in the lab, which has been entered; not of a platform that is not used."""
        if self._prepared is None:
            return
        service = Service(
            self._prepared.virtualbox, self._scratch / "service", Cgroup(cgroup_name(self._run_id, self.name))
        )
        service.start()
        self._undo.callback(service.close)
        self._service = service

    def _serving(self) -> Service:
        if self._service is None:
            raise TestbedError(f"the platform {self.name} is used outside the lab")
        return self._service

    def start(self, instance: Instance) -> None:
        requested_ns = time.monotonic_ns()
        prepared, service = self._ready(), self._serving()
        if instance.name in self._running:
            raise UsageError(f"start {self.noun} {instance.name}: the name is in use")
        number = next(self._started)
        folder = self._scratch / str(number)
        cgroup = Cgroup(cgroup_name(self._run_id, instance.name))
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            folder.mkdir()
            machine = self._describe(instance, folder, number)
            if machine.mac is not None:
                undo.callback(network.remove_link, machine.card)
                add_card(machine.card, machine.mac, self._lab.bridge_index)
            undo.callback(cgroup.remove)
            cgroup.make_parent()
            make_cgroup(cgroup, instance.spec.resources)
            console = prepared.reader.listen(machine.console, instance.log, _TITLE)
            undo.callback(console.wait_for_end, scale(_END_TIMEOUT_S))
            undo.callback(prepared.reader.abandon, machine.console)
            service.ask("registervm", str(folder / "machine.vbox"))
            said = folder / "said"
            process = service.launch((HEADLESS, "--startvm", machine.name, "--vrde", "off"), cgroup, said)
            undo.callback(reap, process.pid)
            undo.callback(cgroup.kill)
            self._await_running(instance, console, process.pid, said)
            times = (requested_ns, time.monotonic_ns())
            running = _Running(machine.name, machine.memory_bytes, console, cgroup, undo.pop_all(), *times)
            self._running[instance.name] = running

    def _describe(self, instance: Instance, folder: Path, number: int) -> Machine:
        """Write the files of a machine and return it."""
        prepared, spec = self._ready(), instance.spec
        disk = prepared.disks.get(spec.layers)
        if disk is None:
            raise UsageError(f"start {self.noun} {instance.name}: its image was not prepared")
        own = folder / "own"
        plan = guest_plan(spec, prepared.guest.modules("pci"), disk=SCSI_DISK)
        own.write_bytes(make_own_part(make_plan_archive(encode(plan))))
        parts = [Extent(part.stat().st_size, part) for part in (prepared.shared, own)]
        rest = DISK_BYTES - sum(one.length for one in parts)
        machine = Machine(
            identity=uuid4(),
            name=f"{self._run_id}-{number}",
            memory_bytes=compute_guest_memory(spec.resources, instance.service),
            vcpus=count_vcpus(spec.resources, os.cpu_count() or 1),
            boot=_write_disk(folder / "boot.vmdk", (*parts, Extent(rest))),
            root=_write_disk(folder / "root.vmdk", (Extent(disk.stat().st_size, disk),)),
            console=folder / "console",
            card=f"vbox{number}",
            mac=spec.link.mac if spec.link else None,
            steady=_is_emulated(),
        )
        (folder / "machine.vbox").write_text(machine_xml(machine))
        return machine

    def _await_running(self, instance: Instance, console: Console, pid: int, said: Path) -> None:
        """Wait until a machine runs, as its process says, or its console. Raises WorkloadError with what VirtualBox
        says when it does not."""
        deadline_s = time.monotonic() + scale(_START_TIMEOUT_S)
        pidfd = os.pidfd_open(pid)
        try:
            while _RUNS not in read_bounded(said, _LONGEST) and "kernel_entry" not in console.phases():
                if select.select([pidfd], [], [], _LOOK_S)[0] or time.monotonic() > deadline_s:
                    raise self._refusal(instance, said)
        finally:
            os.close(pidfd)

    def _refusal(self, instance: Instance, said: Path) -> WorkloadError:
        lines = read_bounded(said, _LONGEST).decode(errors="replace").strip().splitlines()
        error = next((line for line in lines if "rror" in line), lines[-1] if lines else "it says nothing")
        return WorkloadError(
            f"start {self.noun} {instance.name}: {printable(error)}",
            "these are VirtualBox's words; KVM gives the processor back with its module: rmmod kvm_amd, or kvm_intel",
        )

    def stop(self, instance: Instance) -> None:
        running = self._running.pop(instance.name, None)
        if running is not None:
            running.undo.close()

    def cgroup(self, instance: Instance) -> Cgroup:
        """Raise UsageError: none has all of it. ``meter`` is what counts."""
        self._refuse(instance)

    def _refuse(self, instance: Instance) -> NoReturn:
        raise UsageError(f"{instance.name}: no cgroup has the memory of a guest of VirtualBox's")

    def meter(self, instance: Instance) -> MachineMeter:
        running = self._running[instance.name]
        return MachineMeter(running.cgroup, self._serving(), running.name)

    def read_host(self) -> HostReading:
        return read_kernel()

    def reclaim(self, instance: Instance) -> None:
        """Reclaim nothing: a guest keeps what it has touched."""

    def memory_parts(self, instance: Instance) -> Mapping[str, int]:
        """Return what the guest does with the memory that it has, and what its process takes besides."""
        running, meter = self._running[instance.name], self.meter(instance)
        meminfo = running.console.ask_memory(scale(_MEMINFO_TIMEOUT_S))
        own_bytes, guest_bytes = running.cgroup.memory_bytes(), meter.guest_bytes()
        if meminfo is None:
            return {"guest_ram": guest_bytes, "overhead": own_bytes}
        guest = breakdown.guest_parts(breakdown.parse_guest(meminfo), running.ram_bytes, 0, guest_bytes)
        return {**guest, "overhead": own_bytes}

    def close(self) -> None:
        """End what still runs, then VirtualBox's service and the consoles' reader; remove the run's files."""
        with ExitStack() as undo:
            undo.callback(self._undo.close)
            while self._running:
                undo.callback(self._running.popitem()[1].undo.close)
            self._prepared = self._service = None


def _is_emulated() -> bool:
    """Return whether this host's processor is emulated: its time stamps are steady, but it does not say so."""
    return detect_hypervisor() == EMULATOR


def _write_disk(file: Path, extents: tuple[Extent, ...]) -> Disk:
    identity: UUID = uuid4()
    file.write_text(describe_disk(extents, identity))
    return Disk(identity, file)
