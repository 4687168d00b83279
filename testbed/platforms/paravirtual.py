"""The paravirtual platform: services as guests of Xen's, through libvirt's driver, which no hardware virtualises.

A guest is no process of this system, which is domain 0: Xen itself has its memory and runs its processors, and counts
both (``testbed.xen.meter``). Its kernel, its disk of the image's layers and the launcher as PID 1 are those of ``vm``;
disk and network card are Xen's own, whose other ends are in domain 0's kernel.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

from msgspec import Struct

from runtime import network
from runtime.cgroups import Cgroup
from runtime.errors import PrerequisiteError, TestbedError, UsageError
from runtime.home import store_root
from runtime.images.model import Image
from runtime.speed import factor, scale
from testbed import breakdown
from testbed.host.facts import format_version
from testbed.host.loop import attach
from testbed.lab import BRIDGE, Lab, fix_port
from testbed.platforms.guests import Domains
from testbed.platforms.protocol import Instance
from testbed.qemu.connection import destroy_domain, ensure_event_loop, start_domain
from testbed.qemu.console import Console
from testbed.qemu.domain import compute_guest_memory, count_vcpus
from testbed.qemu.reader import ConsoleReader
from testbed.sample import HostReading
from testbed.scenario.model import Scenario
from testbed.xen.domain import COMMAND_LINE, Domain, domain_xml, find_terminal
from testbed.xen.domain_0 import URI, require_domain_0
from testbed.xen.meter import WORDS, DomainMeter, read_machine
from vm_images.disk import ensure_disk
from vm_images.guest import Guest, ensure_guest, xen_guest_of
from vm_images.plans.guest import XEN_DISK, guest_plan

PARAVIRTUAL = "paravirtual-2003"
_END_TIMEOUT_S, _CONSOLE_TIMEOUT_S, _MEMINFO_TIMEOUT_S = 10.0, 10.0, 5.0
# Xen's tools run it when the other end of a guest's network card is there, which the kernel makes where it has booted,
# and wait for its end; netback waits for what it writes.
_SCRIPT = """\
#!/bin/sh -e
[ "$1" = online ] || exit 0
ip link set dev "$vif" netns {namespace}
xenstore-write "$XENBUS_PATH/hotplug-status" connected
"""


class _Prepared(Struct, frozen=True):
    """What is the same for all guests: ``disks`` are block devices by the layers that they have, and ``connection`` is
    libvirt's."""

    guest: Guest
    disks: Mapping[tuple[str, ...], Path]
    connection: Any
    reader: ConsoleReader


class _Running(Struct, frozen=True):
    """A started guest: its domain, console and files, and when it was asked for and made."""

    domain: Any
    console: Console
    folder: Path
    requested_ns: int
    created_ns: int

    def end(self) -> None:
        """End it and remove its files; each of these is tried, whatever becomes of the one before."""
        with ExitStack() as undo:  # runs in reverse
            undo.callback(shutil.rmtree, self.folder, ignore_errors=True)
            undo.callback(self.console.wait_for_end, scale(_END_TIMEOUT_S))
            undo.callback(destroy_domain, self.domain)


def _await_terminal(machine: Any, name: str) -> Path:
    """Return the terminal that is a guest's console; Xen's daemon makes it once there is the guest."""
    limit_s = scale(_CONSOLE_TIMEOUT_S)
    deadline_s = time.monotonic() + limit_s
    while not (terminal := find_terminal(machine.XMLDesc())):
        if time.monotonic() > deadline_s:
            raise TestbedError(f"start guest {name} of Xen's: it has no console after {limit_s:g} s", "see xenconsoled")
        time.sleep(0.001)
    return Path(terminal)


class ParavirtualPlatform(Domains[_Running]):
    """Paravirtual guests on the lab's bridge. ``scratch`` is the run's own directory."""

    name = PARAVIRTUAL
    noun = "Xen's guest"
    uri = URI
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
        self._started = 0
        lab.when_entered(self._write_script)

    def _ready(self) -> _Prepared:
        if self._prepared is None:
            raise TestbedError(f"the platform {self.name} is used before it is prepared")
        return self._prepared

    @property
    def patience(self) -> float:
        return factor()

    @property
    def label(self) -> str:
        return f"{self.name} (Xen, paravirtual)"

    def facts(self) -> Mapping[str, object]:
        prepared = self._ready()
        kernel = prepared.guest.kernel
        return {
            "accelerator": "xen",
            "hypervisor": f"Xen {format_version(prepared.connection.getVersion())}",
            "virtualisation": "none in hardware: the guest's kernel asks Xen",
            "kernel": kernel.release,
            "kernel_package": f"{kernel.package} {kernel.version}",
            "kernel_sha256": kernel.sha256,
            "command_line": COMMAND_LINE,
            "root": "erofs on a block device of Xen's below an overlay on tmpfs",
            "network": "a network card of Xen's, on the lab's bridge",
            "libvirt": format_version(prepared.connection.getLibVersion()),
            "connection": URI,
            "counted": WORDS,
        }

    def prepare(self, scenario: Scenario, images: Mapping[str, Image]) -> None:
        """Prepare kernel, disks and the connection. Raises PrerequisiteError for whatever this system lacks."""
        for service in scenario.services:
            compute_guest_memory(service.resources, service.name)
        self.prepare_images(images.values())

    def prepare_images(self, images: Iterable[Image]) -> None:
        """Do what ``prepare`` does, for images alone."""
        require_domain_0()
        root = store_root() / "guest"
        guest = xen_guest_of(ensure_guest(root).kernel)
        libvirt = ensure_event_loop()
        with ExitStack() as undo:
            disks = {}
            for image in images:
                device = attach(ensure_disk(root / "disks", image), writable=False)
                undo.callback(os.close, device)
                disks[tuple(str(layer.path) for layer in image.layers)] = Path(os.readlink(f"/proc/self/fd/{device}"))
            self._scratch.mkdir(mode=0o700, parents=True)  # plans hold the services' environment
            undo.callback(shutil.rmtree, self._scratch, ignore_errors=True)
            try:
                connection = libvirt.open(URI)
            except libvirt.libvirtError as error:
                raise PrerequisiteError(f"open {URI}: {error}", "install libvirt-daemon-driver-xen") from error
            undo.callback(connection.close)
            reader = ConsoleReader()
            undo.callback(reader.close)
            self._prepared = _Prepared(guest, disks, connection, reader)
            self._undo = undo.pop_all()

    @property
    def _script(self) -> Path:
        return self._scratch / "network"

    def _write_script(self) -> None:
        """Write what brings network cards into the lab, which has been entered."""
        namespace = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
        self._script.write_text(_SCRIPT.format(namespace=shlex.quote(namespace)))
        self._script.chmod(0o700)

    def start(self, instance: Instance) -> None:
        requested_ns = time.monotonic_ns()
        prepared = self._ready()
        if instance.name in self._running:
            raise UsageError(f"start guest {instance.name} of Xen's: the name is in use")
        self._started += 1
        folder = self._scratch / str(self._started)
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            folder.mkdir()
            domain = self._describe(instance, folder)
            plan = guest_plan(instance.spec, prepared.guest.modules("pci"), disk=XEN_DISK)
            domain.initrd.write_bytes(prepared.guest.initrd(plan))
            # Its processors stand still until its console is read and its network card is where it belongs.
            machine = start_domain(prepared.connection, domain_xml(domain), instance.name, paused=True)
            undo.callback(destroy_domain, machine)
            console = prepared.reader.attend(_await_terminal(machine, instance.name), instance.log)
            if domain.mac is not None:
                self._plug_in(f"vif{machine.ID()}.0", domain.mac)
            self._let_go(machine, instance, domain.vcpus)
            running = _Running(machine, console, folder, requested_ns, time.monotonic_ns())
            self._running[instance.name] = running
            undo.pop_all()

    def _describe(self, instance: Instance, folder: Path) -> Domain:
        prepared, spec = self._ready(), instance.spec
        disk = prepared.disks.get(spec.layers)
        if disk is None:
            raise UsageError(f"start guest {instance.name} of Xen's: its image was not prepared")
        return Domain(
            name=f"{self._run_id}-{instance.name}",
            memory_bytes=compute_guest_memory(spec.resources, instance.service),
            vcpus=count_vcpus(spec.resources, os.cpu_count() or 1),
            kernel=prepared.guest.kernel.image,
            initrd=folder / "initrd",
            disk=disk,
            bridge=BRIDGE,
            script=self._script,
            mac=spec.link.mac if spec.link else None,
        )

    def _plug_in(self, card: str, mac: str) -> None:
        """Put the other end of a network card on the lab's bridge."""
        message = network.join_bridge(socket.if_nametoindex(card), self._lab.bridge_index)
        network.request(message, f"put {card} on the bridge")
        fix_port(card, mac)

    def _let_go(self, machine: Any, instance: Instance, vcpus: int) -> None:
        """Give a guest its limit of processor time, where whole processors are not that already, and let it run."""
        cpus = instance.spec.resources.cpus
        libvirt = ensure_event_loop()
        try:
            if cpus is not None and cpus < vcpus:
                machine.setSchedulerParameters({"cap": max(1, round(cpus * 100))})
            machine.resume()
        except libvirt.libvirtError as error:
            raise TestbedError(f"start guest {instance.name} of Xen's: {error}") from error

    def stop(self, instance: Instance) -> None:
        running = self._running.pop(instance.name, None)
        if running is not None:
            running.end()

    def cgroup(self, instance: Instance) -> Cgroup:
        """Raise UsageError: there is none. ``meter`` is what counts."""
        self._refuse(instance)

    def _refuse(self, instance: Instance) -> NoReturn:
        raise UsageError(f"{instance.name}: a guest of Xen's is no process here, so no cgroup says what it takes")

    def meter(self, instance: Instance) -> DomainMeter:
        return DomainMeter(self._running[instance.name].domain)

    def read_host(self) -> HostReading:
        return read_machine(self._ready().connection)

    def reclaim(self, instance: Instance) -> None:
        """Reclaim nothing: a guest keeps what Xen has given it."""

    def memory_parts(self, instance: Instance) -> Mapping[str, int]:
        """Return what it does with the memory that Xen gave it, all of it from the start on."""
        return breakdown.given_parts(
            self.meter(instance).memory_bytes(),
            self._running[instance.name].console.ask_memory(scale(_MEMINFO_TIMEOUT_S)),
        )

    def close(self) -> None:
        """End what still runs, then the connection and the consoles' reader; give the disks back."""
        with ExitStack() as undo:
            undo.callback(self._undo.close)
            while self._running:
                undo.callback(self._running.popitem()[1].end)
            self._prepared = None
