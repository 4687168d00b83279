"""Docker: an engine whose daemon somebody else has started; it is asked over its command line and never moved.

Its containers' roots are its own: the layers are imported as one image, untimed, since it takes no directory for a
root. A container is made without a network; our launcher is executed in it and waits until the lab's interface is
there, then becomes the command. What docker keeps for each container (containerd's shim) and for all (dockerd,
containerd) is outside the instance's cgroup, and read by process.
"""

from __future__ import annotations

import os
import platform
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from errno import EPERM
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct

from runtime import libc, network
from runtime.cgroups import Cgroup, hierarchies, require
from runtime.errors import TestbedError, UsageError, WorkloadError
from runtime.images.merging import directories
from runtime.images.model import Image
from runtime.launcher import STATIC_BINARY
from runtime.lease import cgroup_name
from runtime.plan.constants import CLONE_NEWNET
from runtime.plan.encode import encode
from runtime.plan.network import Attachment
from runtime.plan.process import environment, home_steps, search_path
from runtime.plan.root import HOLD_ROOT
from runtime.plan.steps import Chdir, Exec, LogLine, Open, Plan, RequestAdmission, Setsid
from runtime.spec import Link, Spec, configuration
from runtime.speed import factor
from testbed import breakdown
from testbed.compose.sharing import find_lender
from testbed.lab import Lab
from testbed.platforms import docker_client, phases
from testbed.platforms.docker_client import Daemon, find_daemon
from testbed.platforms.lxc_cgroups import find_cgroup
from testbed.platforms.peers.plans import ADMISSION, ENTRY, ENTRY_PLAN, LAUNCHER
from testbed.platforms.peers.running import SplitCgroup, remove_cgroup
from testbed.platforms.peers.sweep import sweep_run
from testbed.platforms.protocol import Instance, Overhead, Started
from testbed.qemu.console import Console
from testbed.qemu.domain import PLAN_VARIABLE
from testbed.qemu.reader import ConsoleReader
from testbed.sample import CLOCK_TICKS_PER_S, read_pss_bytes
from testbed.scenario.model import Scenario
from vm_images.plans.guest import EXECUTING

_OUTPUT = "output"
# The daemons that all containers share.
_SHARED = ("dockerd", "containerd")
_INTERFACE = network.VethEnd("eth0", 100)  # as a container's of ours


class _Running(Struct):
    """A started container."""

    name: str
    console: Console
    requested_ns: int
    created_ns: int
    undo: ExitStack
    admitted: list[int]
    cgroup: str = ""

    @property
    def pid(self) -> int:
        """The container's first process; 0 until it has asked for its network."""
        return self.admitted[0] if self.admitted else 0


def entry_plan(spec: Spec) -> Plan:
    """Return the plan from docker's container to the workload: its output, its network, its command."""
    process = configuration(spec).process
    assert process is not None
    home, env = home_steps(process)
    execution = Exec(process.args, environment(env), search_path(env), at_home=bool(home))
    return Plan(
        (
            Open(f"{ENTRY}/{_OUTPUT}", 1, os.O_WRONLY),
            Open(f"{ENTRY}/{_OUTPUT}", 2, os.O_WRONLY),
            Setsid(tolerate=(EPERM,)),
            RequestAdmission(f"{ENTRY}/{ADMISSION}"),
            Open("/dev/null", 0, os.O_RDONLY),
            Chdir("/"),
            HOLD_ROOT,
            Chdir(process.cwd),
            *home,
            LogLine(EXECUTING),
            execution,
        )
    )


class DockerPlatform:
    """Containers of docker's daemon, on the lab's bridge."""

    name = "docker"
    emulated = False
    virtual = False
    shared = False
    one_address = False

    def __init__(self, run_id: str, scratch: Path, lab: Lab) -> None:
        self._run_id = run_id
        self._mark = docker_client.mark_of(run_id)
        self._scratch = scratch / self.name
        self._lab = lab
        self._daemon: Daemon | None = None
        self._images: dict[tuple[str, ...], str] = {}
        self._reader: ConsoleReader | None = None
        self._running: dict[str, _Running] = {}
        self._lenders: frozenset[str] = frozenset()
        self._started = 0
        self._undo = ExitStack()

    @property
    def patience(self) -> float:
        return factor()

    @property
    def label(self) -> str:
        return f"docker {self._daemon.version}" if self._daemon else self.name

    def _ready(self) -> Daemon:
        if self._daemon is None:
            raise TestbedError("the platform docker is used before it is prepared")
        return self._daemon

    def facts(self) -> Mapping[str, object]:
        daemon = self._ready()
        return {
            "kernel": platform.release(),
            "cgroups": hierarchies().mode,
            "version": daemon.version,
            "runtime": daemon.runtime,
            "root": f"docker's own storage ({daemon.storage}), into which the layers were imported as one image",
            "walls": "as a container's of ours, by docker's own words; the masked paths are docker's",
            "network": "the lab's interface, put into a container made without one, before its command is executed",
            "entry": "our launcher, executed in the container, waits for the network and becomes the command",
            "own_processes": "containerd's shim by PSS, outside the instance's cgroup and its charge; dockerd and"
            " containerd, which serve all containers, as shared_overhead",
        }

    def prepare(self, scenario: Scenario, images: Mapping[str, Image]) -> None:
        """Import the images. Raises PrerequisiteError without a daemon that answers."""
        lenders = (find_lender(service, "ipc") for service in scenario.services)
        self.prepare_layers((directories(image.layers) for image in images.values()), lenders)

    def prepare_layers(self, images: Iterable[tuple[str, ...]], lenders: Iterable[str] = ()) -> None:
        """Do what ``prepare`` does, for images by their layers' paths, and services that lend others their IPC."""
        self._lenders = frozenset(lenders)
        require(hierarchies())
        daemon = find_daemon()
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, self._scratch, ignore_errors=True)
            self._scratch.mkdir(mode=0o700, parents=True)
            undo.callback(docker_client.remove_marked, daemon.client, self._mark)
            for number, layers in enumerate(dict.fromkeys(images)):
                reference = f"testbed/{self._mark}:{number}"
                docker_client.import_layers(daemon.client, layers, reference, self._mark)
                self._images[layers] = reference
            self._daemon = daemon
            self._undo = undo.pop_all()

    def start(self, instance: Instance) -> None:
        requested_ns = time.monotonic_ns()
        daemon, spec = self._ready(), instance.spec
        cgroup = Cgroup(cgroup_name(self._run_id, instance.name))
        if instance.name in self._running or cgroup.exists():
            raise UsageError(f"start container {instance.name}: the name is in use", "run `invoke clean`")
        if self._reader is None:
            self._reader = ConsoleReader()  # in the lab, as its thread connects what starts to it
        self._started += 1
        folder, name = self._scratch / str(self._started), f"testbed-{self._run_id}-{instance.name}"
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            entry = _lay_out(folder, spec)
            undo.callback(remove_cgroup, cgroup)
            cgroup.make()
            console = self._reader.follow(entry / _OUTPUT, instance.log)
            undo.callback(_let_go, entry / _OUTPUT)
            (entry / _OUTPUT).chmod(0o622)
            admitted: list[int] = []
            self._reader.admit(entry / ADMISSION, partial(_connect, spec.link, self._lab.attach(), admitted.append))
            undo.callback(self._reader.abandon, entry / ADMISSION)
            (entry / ADMISSION).chmod(0o666)
            undo.callback(docker_client.run, (daemon.client, "rm", "--force", "--volumes", name), "docker", check=False)
            variables = {PLAN_VARIABLE: f"{ENTRY}/{ENTRY_PLAN}"}
            image = self._images[spec.layers]
            lends = instance.service in self._lenders
            containers = {service: f"testbed-{self._run_id}-{of}" for service, of in instance.lenders.items()}
            words = docker_client.run_words(
                daemon.client, spec, name, self._mark, cgroup.name, entry, image, variables, containers, lends
            )
            running = _Running(name, console, requested_ns, time.monotonic_ns(), undo, admitted)
            try:
                docker_client.run(words, f"start container {instance.name} by docker")
            except TestbedError as error:
                raise WorkloadError(error.message, error.hint) from error
            self._running[instance.name] = running
            running.undo = undo.pop_all()

    def started(self, instance: Instance, timeout_s: float) -> Started:
        """Return the phases, once the workload has been executed. Raises WorkloadError when it never is."""
        running = self._running[instance.name]
        console = running.console
        phases.await_first_process(instance, console, timeout_s)
        with suppress(OSError):
            running.cgroup = find_cgroup(running.pid)
        seen = console.phases()
        return Started(
            {"request": running.requested_ns, "created": running.created_ns, "first_process": seen["first_process"]}
        )

    def alive(self, instance: Instance) -> bool:
        """Return whether anything still holds the container's output: its first process, or what that has started."""
        running = self._running.get(instance.name)
        return running is not None and not running.console.ended

    def ending(self, instance: Instance) -> str:
        running = self._running.get(instance.name)
        if running is None:
            return ""
        words = (self._ready().client, "inspect", "--format", "{{.State.ExitCode}}", running.name)
        status = docker_client.run(words, "docker inspect", check=False).strip()
        return f"exit status {status}" if status.isdigit() else ""

    def stop(self, instance: Instance) -> None:
        running = self._running.pop(instance.name, None)
        if running is not None:
            running.undo.close()

    def cgroup(self, instance: Instance) -> Cgroup:
        name = cgroup_name(self._run_id, instance.name)
        running = self._running.get(instance.name)
        return SplitCgroup(name, hierarchies(), (running and running.cgroup) or name)

    def overhead(self, instance: Instance) -> Overhead:
        """Return what containerd's shim takes, the parent of the container's first process; memory by PSS."""
        running = self._running[instance.name]
        return read_processes([parent]) if (parent := _parent(running.pid)) > 1 else Overhead()

    def shared_overhead(self) -> Overhead:
        """Return what the daemons take that serve all containers, whoever started those."""
        return read_processes(_find_processes(_SHARED))

    def reclaim(self, instance: Instance) -> None:
        """Reclaim nothing: a container's free memory is the host's already."""

    def memory_parts(self, instance: Instance) -> Mapping[str, int]:
        return breakdown.read_container_parts(self.cgroup(instance))

    def close(self) -> None:
        """End what still runs; remove the run's images and files."""
        with ExitStack() as undo:
            undo.callback(sweep_run, self._run_id)
            undo.callback(self._undo.close)
            if self._reader is not None:
                undo.callback(self._reader.close)
                self._reader = None
            for running in self._running.values():  # the last one first, as others may share what it shares
                undo.callback(running.undo.close)
            self._running = {}


def _lay_out(folder: Path, spec: Spec) -> Path:
    """Write what is bound into the container; return the folder of that."""
    entry = folder / "entry"
    entry.mkdir(mode=0o755, parents=True)
    shutil.copy2(STATIC_BINARY, entry / LAUNCHER)
    (entry / ENTRY_PLAN).write_bytes(encode(entry_plan(spec)))
    if (seccomp := configuration(spec).linux.seccomp) is not None:
        (folder / "seccomp.json").write_bytes(msgspec.json.encode(seccomp))
    return entry


def _let_go(pipe: Path) -> None:
    """End the console of a named pipe that nobody has written to, by opening and closing it."""
    with suppress(OSError):
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))


def _connect(link: Link | None, attachment: Attachment, tell: Callable[[int], None], pid: int) -> None:
    """Give a waiting process's network namespace the lab's interface. Raises OSError."""
    tell(pid)
    if link is None:
        return
    port = attachment.veth()
    with Path(f"/proc/{pid}/ns/net").open("rb") as namespace:
        try:
            veth = network.create_veth(port, attachment.bridge_index, _INTERFACE, link.mac, namespace.fileno())
            network.request(veth, f"create veth {port.name}")
            network.request(network.fix_port(port.index), f"the bridge learns nothing from {port.name}")
            network.request(network.add_port_address(port.index, link.mac), f"{link.mac} is at {port.name}")
            failed: list[TestbedError | OSError] = []
            inside = threading.Thread(target=_configure, args=(namespace.fileno(), link, failed))
            inside.start()
            inside.join()
            if failed:
                raise failed[0]
        except TestbedError as error:
            raise OSError(EPERM, str(error)) from error


def _configure(namespace: int, link: Link, failed: list[TestbedError | OSError]) -> None:
    """Configure the interface, in a thread that goes to its namespace and ends there."""
    try:
        libc.call("setns", namespace, CLONE_NEWNET)
        network.request(network.loopback_up(), "bring lo up")
        network.request(network.add_address(_INTERFACE.index, link.address), f"eth0 is {link.address}")
        network.request(network.link_up(_INTERFACE.name), "bring eth0 up")
        if link.gateway is not None:
            network.request(network.add_default_route(link.gateway), f"default route by {link.gateway}")
    except (TestbedError, OSError) as error:
        failed.append(error)


def read_processes(pids: Iterable[int]) -> Overhead:
    """Return the memory (PSS) and processor time of processes; those that have ended count nothing."""
    memory_bytes, ticks = 0, 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # utime and stime, proc_pid_stat(5)
            memory_bytes += read_pss_bytes([pid])
    return Overhead(memory_bytes, ticks * 10**9 // CLOCK_TICKS_PER_S)


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _find_processes(names: tuple[str, ...]) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            if path.read_text().strip() in names:
                found.append(int(path.parent.name))
    return found
