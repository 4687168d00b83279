"""A second container platform: libvirt's LXC driver, in a libvirtd of our own (see ``daemon``).

libvirt makes the namespaces, the cgroup with its limits, the network interface, /proc, /dev and /sys. The root is
mounted by our launcher, which libvirt takes for its controller; our launcher is also what libvirt takes for init: it
does what libvirt has no words for (user, capabilities, masked paths, system calls, the task limit) and becomes the
workload.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from errno import EINVAL, ENOENT
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from msgspec import Struct
from msgspec.structs import replace

from runtime.cgroups import Cgroup, Hierarchies, hierarchies, require
from runtime.errors import PrerequisiteError, TestbedError, UsageError
from runtime.home import store_root
from runtime.images.model import Image
from runtime.launcher import STATIC_BINARY
from runtime.lease import cgroup_name
from runtime.plan.cgroup import join_steps
from runtime.plan.constants import CLONE_NEWNS, MNT_DETACH, MS_PRIVATE, MS_REC
from runtime.plan.encode import encode
from runtime.plan.root import HOLD_ROOT
from runtime.plan.steps import (
    Chdir,
    Exec,
    LogLine,
    Mount,
    Open,
    Plan,
    RequestAdmission,
    Step,
    Unmount,
    Unshare,
)
from runtime.spec import CPU_PERIOD_USEC, Spec, cpu_quota_usec
from runtime.speed import factor, scale
from runtime.unionfs.overlay import mount_steps, volatile_steps
from testbed import breakdown
from testbed.host.facts import format_version
from testbed.host.libvirt_library import load_libvirt
from testbed.lab import Lab, fix_port
from testbed.platforms import phases
from testbed.platforms.lxc_cgroups import find_cgroup, limit_tasks, restrict_hierarchies
from testbed.platforms.protocol import Instance, Started
from testbed.qemu.connection import destroy_domain, ensure_event_loop
from testbed.qemu.console import Console
from testbed.qemu.daemon import Daemon, find_libvirtd, seen_at
from testbed.qemu.domain import PLAN_VARIABLE, add_child
from testbed.qemu.reader import ConsoleReader
from testbed.scenario.model import Scenario
from vm_images.plans.guest import FIRST_USERSPACE, workload_steps

CONTROLLER = Path("/usr/lib/libvirt/libvirt_lxc")
_DRIVERS = "*/libvirt/connection-driver/libvirt_driver_lxc.so"
_URI = "lxc:///system"
# Where the container finds what starts it; unmounted before the workload runs, an empty directory stays.
_OURS, _TASKS, _ADMISSION = "/.testbed", "/.testbed/tasks", "admission"
_END_TIMEOUT_S = 5.0


def find_driver() -> None:
    """Raises PrerequisiteError without libvirtd, its LXC driver, or that driver's controller."""
    find_libvirtd()
    if not CONTROLLER.exists() or not list(Path("/usr/lib").glob(_DRIVERS)):
        raise PrerequisiteError("libvirt has no LXC driver here", "install libvirt-daemon-driver-lxc")


class Domain(Struct, frozen=True):
    """What libvirt makes of one container. ``tasks`` is the cgroup directory of its task limit, or None; ``port`` is
    the host's end of its network interface."""

    name: str
    spec: Spec
    controller: Path
    root: Path
    ours: Path
    bridge: str
    tasks: Path | None
    port: str = ""


def controller_plan(spec: Spec, folder: Path, root: Path) -> Plan:
    """Return the plan that mounts the layers, with a writable tmpfs above them, at ``root``, and becomes the
    controller.

    The mounts are in a namespace of its own and end with it.
    """
    volatile, writable = volatile_steps(str(folder / "volatile"))
    return Plan(
        (
            Unshare(CLONE_NEWNS),
            Mount("", "/", "", MS_REC | MS_PRIVATE),
            *volatile,
            *mount_steps(spec.layers, writable, str(root)),
            Chdir("/"),
            Exec((str(CONTROLLER),), append_arguments=True),
        )
    )


def init_plan(spec: Spec, *, asks: bool = False) -> Plan:
    """Return the plan of the container's first process, from the root as libvirt leaves it to the workload.

    Where libvirt's cgroup is the only one that it can be in, on v2, it ``asks`` us for its task limit.
    """
    limit: tuple[Step, ...] = ()
    if asks:
        limit = (RequestAdmission(f"{_OURS}/{_ADMISSION}"),)
    elif spec.resources.pids is not None:
        # The bind mount of one cgroup directory: the container sees it as a hierarchy with nothing but itself.
        here = Hierarchies({"pids": Path(_TASKS)}, None, frozenset())
        limit = (*join_steps(here, "."), Unmount(_TASKS, MNT_DETACH))
    return Plan(
        (
            Open(f"{_OURS}/console", 1, os.O_WRONLY),
            Open(f"{_OURS}/console", 2, os.O_WRONLY),
            LogLine(FIRST_USERSPACE),
            *limit,
            Unmount(_OURS, MNT_DETACH),
            Unmount("/sys/fs/cgroup", MNT_DETACH, tolerate=(EINVAL, ENOENT)),
            Chdir("/"),
            HOLD_ROOT,
            *workload_steps(spec),
        )
    )


def _mounted(devices: Element, source: Path, target: str) -> None:
    filesystem = add_child(devices, "filesystem", type="mount")
    add_child(filesystem, "source", dir=str(source))
    add_child(filesystem, "target", dir=target)


def domain_xml(domain: Domain, host_memory_bytes: int) -> str:
    """Return the domain's XML (formatdomain.html, drvlxc.html). ``host_memory_bytes`` is the limit of one without a
    limit."""
    resources = domain.spec.resources
    root = Element("domain", type="lxc")
    add_child(root, "name", domain.name)
    add_child(root, "memory", str(resources.memory_bytes or host_memory_bytes), unit="b")
    add_child(root, "vcpu", "1")  # without effect: a container sees all processors, and the quota holds it
    if resources.cpus is not None:
        tune = add_child(root, "cputune")
        add_child(tune, "period", str(CPU_PERIOD_USEC))
        add_child(tune, "quota", str(cpu_quota_usec(resources.cpus)))
    system = add_child(root, "os")
    add_child(system, "type", "exe", arch="x86_64")
    add_child(system, "init", f"{_OURS}/launcher")
    add_child(system, "initenv", f"{_OURS}/plan", name=PLAN_VARIABLE)
    features = add_child(root, "features")
    add_child(features, "capabilities", policy="allow")  # the plan takes away all that the spec does not have
    add_child(features, "privnet")
    devices = add_child(root, "devices")
    add_child(devices, "emulator", str(domain.controller))
    _mounted(devices, domain.root, "/")
    _mounted(devices, domain.ours, _OURS)
    if domain.tasks is not None:
        _mounted(devices, domain.tasks, _TASKS)
    if (link := domain.spec.link) is not None:
        interface = add_child(devices, "interface", type="bridge")
        add_child(interface, "mac", address=link.mac)
        add_child(interface, "source", bridge=domain.bridge)
        add_child(interface, "target", dev=domain.port)
        add_child(
            interface, "ip", address=str(link.address.ip), family="ipv4", prefix=str(link.address.network.prefixlen)
        )
        if link.gateway:
            everywhere = {"address": "0.0.0.0", "prefix": "0"}  # noqa: S104 # a destination
            add_child(interface, "route", family="ipv4", gateway=str(link.gateway), **everywhere)
        add_child(interface, "guest", dev="eth0")
    add_child(devices, "console", type="pty")
    return ElementTree.tostring(root, encoding="unicode")


class _Running(Struct, frozen=True):
    """A started container: its libvirt domain, console, cgroups and files."""

    domain: Any
    console: Console
    cgroup: Cgroup
    tasks: Cgroup
    folder: Path
    requested_ns: int
    created_ns: int

    def end(self) -> None:
        """End it and remove cgroups and files; each of these is tried, whatever becomes of the one before."""
        with ExitStack() as undo:  # runs in reverse
            undo.callback(shutil.rmtree, self.folder, ignore_errors=True)
            undo.callback(self.tasks.remove)
            undo.callback(self.cgroup.remove)
            undo.callback(self.console.wait_for_end, scale(_END_TIMEOUT_S))
            undo.callback(self.cgroup.kill)
            undo.callback(destroy_domain, self.domain)


class LibvirtLxcPlatform:
    """Containers of libvirt's LXC driver, on the lab's bridge, from the same layers as all others.

    The libvirtd starts when the lab is entered, in its network namespace, so that it makes its interfaces there.
    """

    name = "libvirt-lxc"
    label = "libvirt-lxc"
    emulated = False
    virtual = False
    shared = False
    one_address = False

    def __init__(self, scratch: Path, bridge: str, run_id: str, lab: Lab) -> None:
        self._scratch = scratch / self.name
        self._bridge = bridge
        self._daemon_cgroup = Cgroup(cgroup_name(run_id, "libvirtd"))
        self._undo = ExitStack()
        self._running: dict[str, _Running] = {}
        self._started = 0
        self._connection: Any = None
        self._reader: ConsoleReader | None = None
        lab.when_entered(self._enter)

    @property
    def patience(self) -> float:
        return factor()

    def facts(self) -> Mapping[str, object]:
        return {
            "kernel": platform.release(),
            "cgroups": hierarchies().mode,
            "root": "overlay on tmpfs",
            "libvirt": format_version(load_libvirt().getVersion()),
        }

    def prepare(self, scenario: Scenario, images: Mapping[str, Image]) -> None:
        """Convert nothing; raise PrerequisiteError for what the host lacks."""
        require(hierarchies())
        find_driver()

    def _enter(self) -> None:
        """Start libvirtd in the lab."""
        with ExitStack() as undo:
            self._scratch.mkdir(mode=0o700, parents=True)  # plans hold the services' environment
            undo.callback(shutil.rmtree, self._scratch, ignore_errors=True)
            daemon = Daemon(self._scratch / "libvirtd", self._daemon_cgroup, (self._scratch, store_root()))
            undo.callback(daemon.close)
            daemon.start()
            libvirt = ensure_event_loop()
            try:
                self._connection = libvirt.open(daemon.uri(_URI))
            except libvirt.libvirtError as error:
                raise PrerequisiteError(f"open {_URI}: {error}", "install libvirt-daemon-driver-lxc") from error
            undo.callback(self._connection.close)
            self._reader = ConsoleReader()
            undo.callback(self._reader.close)
            self._undo = undo.pop_all()

    def start(self, instance: Instance) -> None:
        requested_ns = time.monotonic_ns()
        if self._reader is None:
            raise TestbedError(f"the platform {self.name} is used outside the lab")
        if instance.name in self._running:
            raise UsageError(f"start container {instance.name}: the name is in use")
        self._started += 1
        folder = self._scratch / str(self._started)
        tasks = Cgroup(f"{self._daemon_cgroup.name}/{instance.name}", restrict_hierarchies(hierarchies(), ("pids",)))
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            domain = replace(self._lay_out(instance, folder, tasks), port=f"lxc{self._started}")
            undo.callback(tasks.remove)
            limit = instance.spec.resources.pids
            if limit is not None and self._asks(instance.spec):
                admission = domain.ours / _ADMISSION
                self._reader.admit(admission, partial(limit_tasks, self._daemon_cgroup, limit))
                undo.callback(self._reader.abandon, admission)
            console = self._reader.follow(domain.ours / "console", instance.log)
            undo.callback(_let_go, domain.ours / "console")
            created = self._create(domain)
            undo.callback(destroy_domain, created)
            if domain.spec.link is not None:
                fix_port(domain.port, domain.spec.link.mac)
            created_ns = time.monotonic_ns()
            running = _Running(
                created, console, self._find_cgroup(created, instance.name), tasks, folder, requested_ns, created_ns
            )
            self._running[instance.name] = running
            undo.pop_all()

    def _find_cgroup(self, domain: Any, name: str) -> Cgroup:
        """Return the cgroup that libvirt has made: below that of its daemon, whoever has the process's number by now.
        Of a container that has ended already, it is one that is not there."""
        found = absent = f"{self._daemon_cgroup.name}/ended/{name}"
        with suppress(OSError):
            found = find_cgroup(domain.ID())
        if not found.startswith(f"{self._daemon_cgroup.name}/"):
            found = absent
        return Cgroup(found, restrict_hierarchies(hierarchies(), ("memory", "cpu", "cpuacct", "devices")))

    def _asks(self, spec: Spec) -> bool:
        """Return whether the container has a task limit that no v1 hierarchy can hold."""
        return spec.resources.pids is not None and "pids" not in self._daemon_cgroup.hierarchies.v1

    def _lay_out(self, instance: Instance, folder: Path, tasks: Cgroup) -> Domain:
        """Write the plans and the copies of the launcher that find them, and make the cgroup of the task limit."""
        spec, ours, root = instance.spec, folder / "ours", folder / "root"
        for directory in (ours, root, folder / "volatile"):
            directory.mkdir(parents=True)
        controller = folder / "controller"
        shutil.copy2(STATIC_BINARY, controller)
        shutil.copy2(STATIC_BINARY, ours / "launcher")
        (folder / "controller.plan").write_bytes(encode(controller_plan(spec, folder, root)))
        (ours / "plan").write_bytes(encode(init_plan(spec, asks=self._asks(spec))))
        if spec.resources.pids is None or self._asks(spec):
            return Domain(instance.name, spec, controller, root, ours, self._bridge, None)
        tasks.make()
        (tasks.directories()[0] / "pids.max").write_text(str(spec.resources.pids))
        within = seen_at(self._daemon_cgroup, tasks, "pids")
        return Domain(instance.name, spec, controller, root, ours, self._bridge, within)

    def _create(self, domain: Domain) -> Any:
        libvirt = load_libvirt()
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        try:
            return self._connection.createXML(domain_xml(domain, memory_bytes), 0)
        except libvirt.libvirtError as error:
            raise TestbedError(f"start container {domain.name} by libvirt: {error}") from error

    def started(self, instance: Instance, timeout_s: float) -> Started:
        """Return the phases, once the workload has been executed. Raises WorkloadError when it never is."""
        running = self._running[instance.name]
        console = running.console
        phases.await_first_process(instance, console, timeout_s)
        seen = console.phases()
        created_ns = min(running.created_ns, *seen.values())
        return Started({"request": running.requested_ns, "created": created_ns, **seen})

    def alive(self, instance: Instance) -> bool:
        """Return whether anything still holds the container's output: its first process, or what that has started."""
        running = self._running.get(instance.name)
        return running is not None and not running.console.ended

    def ending(self, instance: Instance) -> str:
        return ""  # libvirt knows the status and has no call that returns it

    def stop(self, instance: Instance) -> None:
        running = self._running.pop(instance.name, None)
        if running is not None:
            running.end()

    def cgroup(self, instance: Instance) -> Cgroup:
        return self._running[instance.name].cgroup

    def reclaim(self, instance: Instance) -> None:
        """Reclaim nothing: a container's free memory is the host's already."""

    def memory_parts(self, instance: Instance) -> Mapping[str, int]:
        return breakdown.read_container_parts(self.cgroup(instance))

    def close(self) -> None:
        """End what still runs, then libvirtd; remove the run's files."""
        with ExitStack() as undo:
            undo.callback(self._undo.close)
            while self._running:
                undo.callback(self._running.popitem()[1].end)
            self._reader = None


def _let_go(pipe: Path) -> None:
    """End the console of a named pipe that nobody has written to, by opening and closing it."""
    os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
