"""The virtual machine platforms: services as guests of QEMU, through libvirt, each kind as its variant says."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.cgroups import Cgroup, hierarchies, require
from runtime.errors import TestbedError, UsageError, WorkloadError
from runtime.home import store_root
from runtime.images.model import Image
from runtime.lease import cgroup_name
from runtime.plan.encode import encode
from runtime.plan.guest import guest_plan
from testbed.platforms.accelerator import Verdict, verdict
from testbed.platforms.connection import Connection, connected, destroy_domain, learn_emulator, start_domain
from testbed.platforms.console import Console
from testbed.platforms.domain import Domain, domain_xml, guest_memory_bytes, vcpu_count
from testbed.platforms.emulator import emulator_plan, ensure_emulator, find_qemu, qemu_version
from testbed.platforms.protocol import Instance, Started
from testbed.platforms.reader import ConsoleReader, adopting
from testbed.platforms.tap import create_tap, remove_tap
from testbed.platforms.variants import VARIANTS, Variant
from testbed.scenario import Scenario
from vm_images.disk import ensure_disk
from vm_images.guest import COMMAND_LINE, Guest, ensure_guest

_END_TIMEOUT_S = 5.0
_STATUS_TIMEOUT_S = 0.5
# Between QEMU's start and its last answer to libvirt pass 0.3 s; this is for a host that is very busy.
START_LIMIT_S = 60.0


@dataclass(frozen=True)
class _Running:
    """A started guest: its libvirt domain, console and files, and the phases that the host itself saw."""

    domain: Any
    console: Console
    cgroup: Cgroup
    folder: Path
    tap: str | None
    requested_ns: int
    created_ns: int

    def end(self) -> None:
        """End QEMU and remove cgroup and files; each of these is tried, whatever becomes of the one before."""
        with ExitStack() as undo:  # runs in reverse
            undo.callback(shutil.rmtree, self.folder, ignore_errors=True)
            if self.tap is not None:
                undo.callback(remove_tap, self.tap)
            undo.callback(self.cgroup.remove)
            undo.callback(self.console.wait_for_end, _END_TIMEOUT_S)
            undo.callback(destroy_domain, self.domain)
            undo.callback(self.cgroup.kill)


@dataclass(frozen=True)
class _Prepared:
    """What all starts share. ``disks`` are by the paths of the layers that they hold."""

    guest: Guest
    disks: Mapping[tuple[str, ...], Path]
    verdict: Verdict
    qemu: Path
    emulator: Path
    libvirt: Connection
    reader: ConsoleReader

    @property
    def connection(self) -> Any:
        """libvirt's own connection (virConnect). Raises TestbedError when it is lost."""
        return self.libvirt.current()


@contextmanager
def _limited(cgroup: Cgroup, name: str) -> Iterator[None]:
    """End a QEMU that does not answer libvirt, which itself would wait for ever. Raises TestbedError then."""
    late = threading.Event()

    def end() -> None:
        late.set()
        processes = cgroup.pids()
        cgroup.kill()
        for pid in processes:  # libvirt goes on waiting for one that nobody reaps
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)

    timer = threading.Timer(START_LIMIT_S, end)
    timer.start()
    try:
        yield
    except TestbedError as error:
        if late.is_set():
            message = f"start virtual machine {name}: QEMU did not answer libvirt within {START_LIMIT_S:g} s"
            raise TestbedError(message) from error
        raise
    finally:
        timer.cancel()


@contextmanager
def _told(name: str) -> Iterator[None]:
    """What the host refuses to a machine that starts, a full disk for example, is that start's failure."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise TestbedError(f"start virtual machine {name}: {where}{error.strerror}") from error


def _version(number: int) -> str:
    """libvirt's version numbers: major * 1,000,000 + minor * 1,000 + release."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


class VmPlatform:
    """Guests with the distribution's kernel and our launcher as PID 1, on disks of the images' layers.

    ``scratch`` is the run's own directory, ``bridge`` the lab's bridge, ``variant`` the kind of machine. ``start``
    is to be called in the lab's network namespace: libvirt works in the calling thread, so that taps and QEMU are
    born there.
    """

    virtual = True

    def __init__(self, scratch: Path, bridge: str, run_id: str, variant: Variant = VARIANTS["vm"]) -> None:
        self._variant = variant
        self._driver = scratch / "libvirt"
        self._scratch = scratch / variant.name
        self._bridge = bridge
        self._run_id = run_id
        self._undo = ExitStack()
        self._prepared: _Prepared | None = None
        self._running: dict[str, _Running] = {}
        self._started = 0

    def _ready(self) -> _Prepared:
        if self._prepared is None:
            raise TestbedError("the virtual machine platform is used before it is prepared")
        return self._prepared

    @property
    def name(self) -> str:
        return self._variant.name

    @property
    def shared(self) -> bool:
        return self._variant.guest_per == "application"

    @property
    def emulated(self) -> bool:
        return self._ready().verdict.accelerator == "tcg"

    @property
    def label(self) -> str:
        return self._ready().verdict.label(self.name)

    def facts(self) -> Mapping[str, object]:
        prepared = self._ready()
        kernel = prepared.guest.kernel
        return {
            "accelerator": prepared.verdict.accelerator,
            "accelerator_reason": prepared.verdict.reason,
            "kernel": kernel.release,
            "kernel_package": f"{kernel.package} {kernel.version}",
            "command_line": COMMAND_LINE,
            "direct_boot": "PVH" if kernel.pvh else "bzImage",
            "machine": self._variant.machine,
            "root": "overlay on tmpfs, over erofs",
            "qemu": qemu_version(prepared.qemu),
            "libvirt": _version(prepared.connection.getLibVersion()),
            "connection": prepared.libvirt.uri,
        }

    def prepare(self, scenario: Scenario, images: Mapping[str, Image]) -> None:
        """Kernel, disks, the accelerator's probe, and libvirt with its knowledge of QEMU."""
        for service in scenario.services:
            guest_memory_bytes(service.resources, service.name)
        self.prepare_images(images.values())

    def prepare_images(self, images: Iterable[Image]) -> None:
        """``prepare``, for images alone. Raises PrerequisiteError for whatever the host lacks."""
        require(hierarchies())
        qemu = find_qemu()
        root = store_root() / "guest"
        guest = ensure_guest(root)
        disks = {
            tuple(str(layer.path) for layer in image.layers): ensure_disk(root / "disks", image) for image in images
        }
        found = verdict(root, qemu, guest)
        with ExitStack() as undo:
            self._scratch.mkdir(parents=True)
            undo.callback(shutil.rmtree, self._scratch, ignore_errors=True)
            emulator = ensure_emulator(root, qemu)
            cache = emulator.parent / "cache"
            connection = undo.enter_context(connected(self._variant.uri, self._driver, cache))
            # Else it would be part of the first timed start.
            learn_emulator(connection.current(), emulator, "kvm" if found.accelerator == "kvm" else "qemu")
            reader = ConsoleReader()
            undo.callback(reader.close)
            self._prepared = _Prepared(guest, disks, found, qemu, emulator, connection, reader)
            self._undo = undo.pop_all()

    def start(self, instance: Instance) -> None:
        requested_ns = time.monotonic_ns()
        prepared = self._ready()
        cgroup = self.cgroup(instance)
        if instance.name in self._running or any(path.exists() for path in cgroup.directories()):
            raise UsageError(f"start virtual machine {instance.name}: the name is in use", "run `invoke clean`")
        self._started += 1
        folder = self._scratch / str(self._started)
        domain = self._domain(instance, folder)
        here = None if prepared.libvirt.embedded else f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
        with _told(instance.name), ExitStack() as undo:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            folder.mkdir()
            domain.initrd.write_bytes(prepared.guest.initrd(guest_plan(instance.spec, prepared.guest.module_paths)))
            plan = emulator_plan(prepared.qemu, cgroup.found, cgroup.name, instance.spec.resources, namespace=here)
            domain.emulator_plan.write_bytes(encode(plan))
            undo.callback(cgroup.remove)
            undo.callback(cgroup.kill)
            cgroup.make_parent()
            console = prepared.reader.listen(domain.console_socket, instance.log)
            undo.callback(prepared.reader.abandon, domain.console_socket)
            if domain.tap is not None:
                undo.callback(remove_tap, domain.tap)
                create_tap(domain.tap, socket.if_nametoindex(self._bridge))
            with adopting(), _limited(cgroup, instance.name):
                started = start_domain(prepared.connection, domain_xml(domain), instance.name)
            created_ns = time.monotonic_ns()
            self._running[instance.name] = _Running(
                started, console, cgroup, folder, domain.tap, requested_ns, created_ns
            )
            undo.pop_all()

    def _domain(self, instance: Instance, folder: Path) -> Domain:
        prepared, spec = self._ready(), instance.spec
        disk = prepared.disks.get(spec.layers)
        if disk is None:
            raise UsageError(f"start virtual machine {instance.name}: its image was not prepared")
        return Domain(
            name=instance.name,
            machine=self._variant.machine,
            accelerator=prepared.verdict.accelerator,
            memory_bytes=guest_memory_bytes(spec.resources, instance.service),
            vcpus=vcpu_count(spec.resources, os.cpu_count() or 1),
            emulator=prepared.emulator,
            emulator_plan=folder / "plan",
            kernel=prepared.guest.kernel.image,
            initrd=folder / "initrd",
            command_line=COMMAND_LINE,
            disk=disk,
            console_socket=folder / "console",
            bridge=self._bridge,
            mac=spec.link.mac if spec.link else None,
            daemon=not prepared.libvirt.embedded,
            tap=None if prepared.libvirt.embedded or spec.link is None else f"tap{self._started}",
        )

    def started(self, instance: Instance, timeout_s: float) -> Started:
        """The phases, once the console shows the workload's execve. Raises WorkloadError when it never does."""
        running = self._running[instance.name]
        console = running.console
        if not console.wait_for("first_process", timeout_s):
            end = "ended" if console.ended else f"took longer than {timeout_s:g} s"
            reason = console.failure or f"its start {end} before its first process"
            raise WorkloadError(
                f"virtual machine {instance.name}: {reason}",
                f"the whole console is in {instance.log}; its last lines:\n{console.tail()}",
            )
        seen = console.phases()
        # Libvirt's call returns a moment after QEMU runs, and a fast guest may be ahead of it.
        created_ns = min(running.created_ns, *seen.values())
        return Started({"request": running.requested_ns, "created": created_ns, **seen})

    def alive(self, instance: Instance) -> bool:
        """Whether QEMU still holds the console: it ends with the workload, which is the guest's PID 1."""
        running = self._running.get(instance.name)
        if running is not None and (lost := self._lost(running)):
            raise WorkloadError(
                f"virtual machine {instance.name}: {lost}",
                f"the whole console is in {instance.log}; its last lines:\n{running.console.tail()}",
            )
        return running is not None and not running.console.ended

    def _lost(self, running: _Running) -> str:
        """What of a guest has been lost while it ran: then it says nothing whether it goes on."""
        if running.domain.connect().isAlive() != 1:
            return f"the connection to libvirt at {self._ready().libvirt.uri} was lost"
        return running.console.log_failure

    def ending(self, instance: Instance) -> str:
        running = self._running.get(instance.name)
        if running is None:
            return ""
        deadline_s = time.monotonic() + _STATUS_TIMEOUT_S  # QEMU's status comes a moment after its console's end
        while not running.console.ending() and time.monotonic() < deadline_s:
            time.sleep(0.01)
        return running.console.ending()

    def exit_status(self, instance: Instance, timeout_s: float) -> int | None:
        """The workload's exit status once the guest has ended; None if it has not, or was stopped."""
        console = self._running[instance.name].console
        return console.exit_status if console.wait_for_end(timeout_s) else None

    def stop(self, instance: Instance) -> None:
        running = self._running.pop(instance.name, None)
        if running is not None:
            with ExitStack() as undo:
                undo.callback(self._ready().libvirt.reopen)
                undo.callback(running.end)

    def cgroup(self, instance: Instance) -> Cgroup:
        return Cgroup(cgroup_name(self._run_id, instance.name))

    def close(self) -> None:
        """End what still runs, then libvirt and the consoles' reader; remove the run's files."""
        with ExitStack() as undo:
            undo.callback(self._undo.close)
            while self._running:
                undo.callback(self._running.popitem()[1].end)
            self._prepared = None
