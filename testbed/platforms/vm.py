"""The virtual machine platforms: services as guests of QEMU, through libvirt, each kind as its variant says."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, nullcontext
from functools import partial
from itertools import chain
from pathlib import Path

from msgspec.structs import replace

from runtime import network
from runtime.cgroups import Cgroup, hierarchies, require
from runtime.errors import UsageError
from runtime.home import store_root
from runtime.images.model import Image
from runtime.lease import cgroup_name
from runtime.plan.encode import encode
from runtime.plan.steps import Plan
from runtime.spec import Resources
from testbed.host.facts import detect_hypervisor
from testbed.lab import fix_port
from testbed.platforms.guest_services import GuestServices
from testbed.platforms.guest_shares import GuestShares, quoting
from testbed.platforms.protocol import Instance
from testbed.qemu import memory, snapshots
from testbed.qemu.accelerator import AUTO
from testbed.qemu.account import (
    find_emulator_account,
    make_guest_account,
    next_number,
    require_reach,
    require_users,
)
from testbed.qemu.clock import clock_options
from testbed.qemu.connection import connect, start_domain
from testbed.qemu.disks import Disks
from testbed.qemu.domain import (
    Domain,
    compute_guest_memory,
    count_vcpus,
    domain_xml,
    name_disk,
    sum_resources,
)
from testbed.qemu.emulator import (
    admit,
    emulator_plan,
    ensure_emulator,
    find_qemu,
    make_cgroup,
)
from testbed.qemu.enclosure import enclose
from testbed.qemu.exits import read_exits
from testbed.qemu.pinning import Pinning, make_pinning
from testbed.qemu.prepared import Prepared, choose_accelerator, describe_machine
from testbed.qemu.reader import ConsoleReader, adopt_orphans
from testbed.qemu.running import Running, limit_start, report_refusal
from testbed.qemu.tap import create_tap
from testbed.qemu.trial import introduce
from testbed.qemu.variants import VARIANTS, Variant
from testbed.scenario.model import Scenario
from vm_images.guest import COMMAND_LINE, ensure_guest
from vm_images.plans.guest import guest_plan
from vm_images.plans.pod import pod_plan, service_plan


class VmPlatform(GuestServices, GuestShares):
    """Guests with the distribution's kernel and our launcher as PID 1, on disks of the images' layers.

    ``scratch`` is the run's own directory, ``bridge`` the lab's bridge, ``variant`` the kind of machine,
    ``accelerator`` a candidate's name, or AUTO for the best that works. ``start`` is to be called in the lab's
    network namespace: libvirt works in the calling thread, so that taps and QEMU are born there.
    """

    virtual = True

    def __init__(
        self, scratch: Path, bridge: str, run_id: str, variant: Variant = VARIANTS["vm"], accelerator: str = AUTO
    ) -> None:
        super().__init__(variant)
        self._lease = scratch
        self._driver = scratch / "libvirt"
        self._scratch = scratch / variant.name
        self._bridge = bridge
        self._wanted = accelerator
        self._run_id = run_id
        self._undo = ExitStack()
        self._while_running = ExitStack()
        self._started = 0

    @property
    def uri(self) -> str:
        return self._ready().libvirt.uri

    @property
    def one_address(self) -> bool:
        return self.shared

    @property
    def patience(self) -> float:
        return self._prepared.verdict.slowness if self._prepared else 1.0

    @property
    def emulated(self) -> bool:
        return not self._ready().verdict.hardware

    @property
    def label(self) -> str:
        return self._ready().verdict.label(self.name, detect_hypervisor())

    def facts(self) -> Mapping[str, object]:
        return {**describe_machine(self._variant, self._ready(), self._command_line()), **self._share_facts()}

    def prepare(self, scenario: Scenario, images: Mapping[str, Image]) -> None:
        """Prepare kernel, disks, the accelerator's probe, and libvirt with its knowledge of QEMU."""
        self._require_size(scenario)
        self._note_sharing(scenario)
        self.prepare_images(images.values())

    def _require_size(self, scenario: Scenario) -> None:
        """Raise UsageError when services are too small, or too large, for the machines that they are to have."""
        groups = [scenario.services] if self.shared else [(service,) for service in scenario.services]
        for group in groups:
            needed = sum_resources({service.name: service.resources for service in group})
            names = " and ".join(service.name for service in group)
            memory.require_whole_pages(self._variant.memory, compute_guest_memory(needed, names), names)

    def prepare_images(self, images: Iterable[Image]) -> None:
        """Do what ``prepare`` does, for images alone. Raises PrerequisiteError for whatever the host lacks."""
        require(hierarchies())
        qemu = find_qemu()
        root = store_root() / "guest"
        guest = ensure_guest(root, self._variant.kernel)
        account = find_emulator_account()
        require_users(Path("/proc/self/uid_map").read_text())
        with ExitStack() as undo:
            disks = self._stored_disks(root, f"{self._run_id}-{self.name}")
            undo.callback(disks.close)
            disks.prepare(images)
            require_reach(make_guest_account(account, self._run_id, 0), guest.kernel.image, *disks.paths())
            chosen = choose_accelerator(self._variant, root, qemu, guest, self._wanted)
            undo.callback(shutil.rmtree, self._scratch, ignore_errors=True)
            enclose(self._scratch)
            undo.enter_context(memory.while_prepared(self._variant.memory, self._lease))
            emulator = ensure_emulator(root, qemu)
            connection = undo.enter_context(connect(self._variant.uri, self._driver, emulator.parent / "cache"))
            # Else it would be part of the first timed start.
            kind = "kvm" if chosen.accelerator == "kvm" else "qemu"
            emulator = introduce(connection, emulator, qemu, kind, self._run_id, self._scratch)
            reader = ConsoleReader()
            undo.callback(reader.close)
            if self._variant.memory.has_balloon:
                guest = guest.with_modules(guest.kernel.balloon_modules)
            if self.executes:
                guest = guest.with_modules(guest.kernel.port_modules)
            sharing = guest.with_modules(guest.kernel.share_modules)
            self._prepared = Prepared(guest, sharing, disks, chosen, qemu, emulator, connection, reader, account)
            self._undo = undo.pop_all()

    def _stored_disks(self, root: Path, owner: str) -> Disks:
        return Disks(root, self._variant.disk, owner)

    def start(self, instance: Instance) -> None:
        requested_ns = time.monotonic_ns()
        prepared = self._ready()
        cgroup = self.cgroup(instance)
        if instance.name in self._running or any(path.exists() for path in cgroup.directories()):
            raise UsageError(f"start virtual machine {instance.name}: the name is in use", "run `invoke clean`")
        self._started += 1
        number, folder = next_number(), self._scratch / str(self._started)
        account = make_guest_account(prepared.account, self._run_id, number)
        here = None if prepared.libvirt.embedded else f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
        with report_refusal(instance.name), ExitStack() as undo:
            domain = self._domain(instance, folder, undo)
            domain = replace(domain, tap=f"tap{number}" if domain.mac else "")
            if not self._running:
                undo.callback(self._while_running.close)
                self._while_running.enter_context(memory.while_running(self._variant.memory, self._lease))
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            folder.mkdir()
            given = [domain.emulator_plan, domain.console_socket]
            if prepared.disks.own:
                given += domain.disks
            if not domain.incoming:
                given += self._write_boot_files(instance, domain)
            admission = folder / "admission"
            plan = emulator_plan(prepared.qemu, admission, account, prepared.qemu_arguments, namespace=here)
            domain.emulator_plan.write_bytes(encode(plan))
            undo.callback(cgroup.remove)
            undo.callback(cgroup.kill)
            cgroup.make_parent()
            make_cgroup(cgroup, self._resources(instance), self._variant.emulator_cpus)
            console = prepared.reader.listen(domain.console_socket, instance.log)
            undo.callback(prepared.reader.abandon, domain.console_socket)
            handed = domain.ram.descriptor if domain.ram else None
            prepared.reader.admit(admission, partial(admit, cgroup, account), handed)
            undo.callback(prepared.reader.abandon, admission)
            port = self._listen(domain, undo)
            lending = self._lend(instance, domain, cgroup, undo)
            sockets = [path for path in (domain.port_socket, domain.share_socket) if path is not None]
            account.give(*given, admission, *sockets)
            if domain.tap and domain.daemon:
                undo.callback(network.remove_link, domain.tap)
                create_tap(domain.tap, socket.if_nametoindex(self._bridge), account.uid)
            console.stamp("defined")
            # What a daemon of ours starts is the daemon's: it waits until init has reaped what it asks and ends.
            adoption = adopt_orphans() if prepared.libvirt.embedded else nullcontext()
            with adoption, limit_start(cgroup, instance.name, self.patience), quoting(lending):
                machine = start_domain(prepared.connection, self._xml(domain), instance.name, paused=domain.incoming)
            created_ns = time.monotonic_ns()
            what = (domain.disks, domain.tap if domain.daemon else "", domain.memory_bytes, account)
            pinned = domain.pinning.processors if domain.pinning else ()
            times = (requested_ns, created_ns)
            running = Running(machine, console, cgroup, folder, prepared.disks, *what, *times, pinned, port, lending)
            undo.push(lambda *_: running.end())
            if domain.tap:  # before the guest has come as far as its network
                fix_port(domain.tap, *self._macs(instance))
            self._go_on(instance, running)
            self._running[instance.name] = running
            undo.pop_all()

    def _write_boot_files(self, instance: Instance, domain: Domain) -> list[Path]:
        """Write what the machine boots from, and no other does; the files, for QEMU's account."""
        domain.initrd.write_bytes(self._initrd(instance))
        return [domain.initrd]

    def _initrd(self, instance: Instance) -> bytes:
        return self._guest(instance).initrd(self._guest_plan(instance))

    def _xml(self, domain: Domain) -> str:
        return domain_xml(domain)

    def _go_on(self, instance: Instance, running: Running) -> None:
        """Do what is left once QEMU exists; its guest runs already, unless it waits for a saved one's state."""

    def _disks(self, instance: Instance, undo: ExitStack) -> tuple[Path, ...]:
        disks = self._ready().disks
        return tuple(disks.give(layers, instance.name, undo) for layers in instance.images)

    def _resources(self, instance: Instance) -> Resources:
        """Return what the machine has: RAM, and processors."""
        return sum_resources({service: spec.resources for service, spec in instance.specs.items()})

    def _mac(self, instance: Instance) -> str | None:
        link = next(iter(instance.specs.values())).link
        return link.mac if link else None

    def _macs(self, instance: Instance) -> tuple[str, ...]:
        """Return all that are behind its network card."""
        return tuple(filter(None, [self._mac(instance)]))

    def _domain(self, instance: Instance, folder: Path, undo: ExitStack) -> Domain:
        """Return the machine, with its files in ``folder``; ``undo`` takes back the disks that it is given."""
        prepared, resources, disk = self._ready(), self._resources(instance), self._variant.disk
        vcpus = count_vcpus(resources, os.cpu_count() or 1)
        return Domain(
            name=instance.name,
            machine=self._variant.machine,
            bus=self._variant.bus,
            accelerator=prepared.verdict.accelerator,
            cpu=prepared.verdict.cpu,
            memory_bytes=compute_guest_memory(resources, " and ".join(instance.specs)),
            vcpus=vcpus,
            emulator=prepared.emulator,
            emulator_plan=folder / "plan",
            kernel=prepared.guest.kernel.image,
            initrd=folder / "initrd",
            command_line=self._command_line(),
            disks=self._disks(instance, undo),
            disk_format=disk.format,
            cache=disk.cache,
            console_socket=folder / "console",
            bridge=self._bridge,
            mac=self._mac(instance),
            memory=self._variant.memory,
            daemon=not prepared.libvirt.embedded,
            unlabelled=prepared.libvirt.security_models(),
            port_socket=folder / "port" if self.executes else None,
            pinning=self._pinning(vcpus),
            share_socket=self._share_socket(instance, folder),
        )

    def _pinning(self, vcpus: int) -> Pinning | None:
        """Return where the virtual processors of a new machine run: where the fewest of those that run already do."""
        if not self._ready().pins(self._variant):
            return None
        return make_pinning(chain.from_iterable(one.processors for one in self._running.values()), vcpus)

    def _command_line(self) -> str:
        return COMMAND_LINE + (clock_options() if self._variant.machine == "microvm" else "")

    def _guest_plan(self, instance: Instance) -> Plan:
        modules, specs = self._guest(instance).modules(self._variant.bus), self._place(instance)
        if not self.shared:
            (spec,), disk, own = specs.values(), self._variant.disk, self._ready().disks.own
            return guest_plan(spec, modules, file_system=disk.file_system, writable_disk=own, commands=self.executes)
        names = self._name_disks(instance)
        link = next(iter(specs.values())).link
        held, leaving, stays = instance.held, instance.leaving, instance.stays
        return pod_plan(specs, names, link, modules, commands=self.executes, held=held, leaving=leaving, stays=stays)

    def _name_disks(self, instance: Instance) -> dict[str, str]:
        """Return the device of each service's disk in the guest."""
        disks = {layers: f"/dev/{name_disk(index)}" for index, layers in enumerate(instance.images)}
        return {service: disks[spec.layers] for service, spec in instance.specs.items()}

    def _plan_again(self, instance: Instance, service: str) -> Plan:
        return service_plan(service, self._place(instance)[service], self._name_disks(instance)[service])

    def stop(self, instance: Instance) -> None:
        running = self._running.pop(instance.name, None)
        if running is not None:
            with ExitStack() as undo:
                if not self._running:
                    undo.callback(self._while_running.close)
                undo.callback(self._ready().libvirt.reopen)
                undo.callback(running.end)

    def take_snapshot(self, instance: Instance, name: str) -> None:
        """Save a running guest's memory and disk, which must be its own; see ``snapshots``."""
        snapshots.take_snapshot(self._running[instance.name].domain, name)

    def revert(self, instance: Instance, name: str) -> None:
        """Put a running guest back to what ``name`` remembers."""
        snapshots.revert(self._running[instance.name].domain, name)

    def clone(self, source: Instance, instance: Instance) -> None:
        """Start ``instance`` from what the disk of the running guest ``source`` holds now."""
        prepared, running = self._ready(), self._running[source.name]
        disks = prepared.disks
        if not disks.own:
            hint = "only a guest with a qcow2 disk of its own can be cloned"
            raise UsageError(f"clone the disk of {source.name}: it is shared and holds nothing of its own", hint)
        continued, target = disks.new_path(source.name), disks.new_path(instance.name)
        snapshots.clone_disk(running.domain, running.paths[0], continued, target, running.account)
        self._running[source.name] = replace(running, paths=(continued,))
        with disks.reserved(instance.name, target):
            self.start(instance)

    def cgroup(self, instance: Instance) -> Cgroup:
        return Cgroup(cgroup_name(self._run_id, instance.name))

    def exits(self, instance: Instance) -> Mapping[str, int] | None:
        """Return what KVM has counted; QEMU's translator has no exits."""
        if self._ready().verdict.accelerator != "kvm":
            return None
        return read_exits(self._running[instance.name].domain)

    def reclaim(self, instance: Instance) -> None:
        """Have the balloon, if there is one for that, take what the guest can do without."""
        if self._variant.memory.balloon:
            self._running[instance.name].reclaim()

    def memory_parts(self, instance: Instance) -> Mapping[str, int]:
        return self._running[instance.name].memory_parts(ballooned=self._variant.memory.has_balloon)

    def close(self) -> None:
        """End what still runs, then libvirt and the consoles' reader; remove the run's files."""
        with ExitStack() as undo:
            undo.callback(self._undo.close)
            undo.callback(self._while_running.close)
            while self._running:
                undo.callback(self._running.popitem()[1].end)
            self._prepared = None
