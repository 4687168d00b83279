"""The platform of peers: what they share, whichever program makes the container.

The workload and the peer's own processes have a cgroup each below the instance's, whose charge is the sum: what a
shim, a monitor or a supervisor takes is part of what the instance costs, and is told apart, too.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from runtime.cgroups import Cgroup, hierarchies, require
from runtime.errors import TestbedError, UsageError, WorkloadError
from runtime.images.model import Image
from runtime.launcher import launch
from runtime.lease import cgroup_name
from runtime.output import last_lines
from runtime.plan.sharing import with_paths
from runtime.processes import wait_exit
from runtime.speed import factor, scale
from testbed import breakdown
from testbed.lab import Lab
from testbed.platforms.lxc_cgroups import find_cgroup
from testbed.platforms.output import ContainerOutput
from testbed.platforms.peers.execs import ExecWatch
from testbed.platforms.peers.oci import PID_FILE
from testbed.platforms.peers.peer import Peer, Place
from testbed.platforms.peers.plans import ADMISSION, program_plan
from testbed.platforms.peers.program import Found, find
from testbed.platforms.peers.running import (
    Running,
    SplitCgroup,
    await_adoption,
    end_processes,
    list_children,
    program_status,
    remove_cgroup,
    workload_status,
)
from testbed.platforms.peers.sweep import sweep_run
from testbed.platforms.protocol import Instance, Overhead, Started
from testbed.qemu.reader import ConsoleReader, adopt_orphans
from testbed.scenario.model import Scenario

# How long a peer's own commands may take on an ordinary host.
_COMMAND_S = 60.0


class PeerPlatform:
    """Instances of one peer, on the lab's bridge, from the same layers as all others."""

    emulated = False
    virtual = False
    shared = False
    one_address = False

    def __init__(self, peer: Peer, run_id: str, scratch: Path, lab: Lab) -> None:
        self.name = peer.name
        self._peer = peer
        self._run_id = run_id
        self._lab = lab
        self._scratch = scratch / peer.name
        self._found: Found | None = None
        self._watch: ExecWatch | None = None
        self._reader: ConsoleReader | None = None
        self._output = ContainerOutput()
        self._running: dict[str, Running] = {}
        self._started = 0
        self._more_facts: Mapping[str, object] = {}

    @property
    def patience(self) -> float:
        return factor()

    @property
    def label(self) -> str:
        version = self._found.version if self._found else ""
        return f"{self._peer.title} {version}".rstrip()

    def facts(self) -> Mapping[str, object]:
        found = self._prepared()
        return {
            "kernel": platform.release(),
            "cgroups": hierarchies().mode,
            "root": "overlay on tmpfs, mounted by our launcher, which becomes the peer's program; part of the start",
            "program": found.path,
            "version": found.version,
            **({"version_problem": found.problem} if found.problem else {}),
            **self._peer.said,
            **self._more_facts,
            "own_processes": "in a cgroup beside the workload's" if self._peer.stays else "none that stays",
        }

    def _prepared(self) -> Found:
        if self._found is None:
            raise TestbedError(f"the platform {self.name} is used before it is prepared")
        return self._found

    def prepare(self, scenario: Scenario, images: Mapping[str, Image]) -> None:
        """Convert nothing; raise PrerequisiteError for what the host lacks."""
        self.prepare_program()

    def prepare_program(self) -> None:
        """Do what ``prepare`` does, which needs no scenario."""
        require(hierarchies())
        found = probe(self._peer)
        self._more_facts = self._peer.more_facts(found)
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, self._scratch, ignore_errors=True)
            self._scratch.mkdir(mode=0o700, parents=True)
            self._watch, self._reader = ExecWatch(), ConsoleReader()
            self._found = found
            undo.pop_all()

    def start(self, instance: Instance) -> None:
        requested_ns = time.monotonic_ns()
        found, peer = self._prepared(), self._peer
        assert self._watch is not None
        place = self._place(instance)
        cgroup = Cgroup(place.cgroup, place.hierarchies)
        if instance.name in self._running or cgroup.exists():
            raise UsageError(f"start {instance.name}: the name is in use", "run `invoke clean`")
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, place.folder, ignore_errors=True)
            self._lay_out(place, undo)
            undo.callback(remove_cgroup, cgroup)
            for part in _parts(peer, place):
                Cgroup(part, place.hierarchies).make(delegate=False)
            stdout = self._output.open(instance)
            undo.callback(self._output.end, instance.name)
            undo.callback(self._watch.forget, instance.name)
            plan = program_plan(peer, place, found, self._lab.attach())
            mounted = partial(self._mounted, instance.name, place.root)
            before = list_children() if peer.detaches else frozenset()
            undo.enter_context(adopt_orphans())
            try:
                with Path(os.devnull).open("rb") as nothing:
                    process = launch(plan, stdin=nothing.fileno(), stdout=stdout, stderr=stdout, answer=mounted)
                running = Running(place, process, requested_ns, undo)
                undo.callback(end_processes, running)
                undo.callback(self._end_by_its_words, place)
                if peer.detaches:
                    try:
                        self._await_program(instance, running)
                    finally:
                        running.orphans = list_children() - before - {process.pid}
            finally:
                os.close(stdout)
            self._running[instance.name] = running
            running.undo = undo.pop_all()

    def _find_lender(self, instance: Instance, service: str) -> int:
        """Return the first process of another service of its copy, once that runs. Raises WorkloadError without one."""
        name = instance.lenders[service]
        assert self._watch is not None
        first = self._watch.wait(name, scale(_COMMAND_S)) if name in self._running else None
        if first is None:
            raise WorkloadError(f"start {instance.name}: {service}, whose namespaces it shares, does not run")
        return first.pid

    def _place(self, instance: Instance) -> Place:
        self._started += 1
        spec = with_paths(instance.spec, partial(self._find_lender, instance))
        name = f"{self._run_id}-{instance.name}"
        cgroup = cgroup_name(self._run_id, instance.name)
        folder, split = self._scratch / str(self._started), self._peer.stays
        return Place(name, spec, folder, self._scratch, cgroup, hierarchies(), split)

    def _lay_out(self, place: Place, undo: ExitStack) -> None:
        for directory in (place.folder, place.root, place.folder / "volatile"):
            directory.mkdir()
        self._peer.lay_out(place)
        if self._peer.enters and self._peer.stays and not self._peer.limits:
            assert self._reader is not None
            admission = place.entry / ADMISSION
            self._reader.admit(admission, partial(_move, Cgroup(place.workload, place.hierarchies)))
            undo.callback(self._reader.abandon, admission)

    def _mounted(self, name: str, root: Path, pid: int) -> None:
        """Watch a root, which is there in the mount namespace of the process that mounted it."""
        assert self._watch is not None
        if self._peer.is_seen:
            self._watch.watch(name, f"/proc/{pid}/root{root}")

    def _await_program(self, instance: Instance, running: Running) -> None:
        """Wait until the peer's program has ended, which leaves the workload running. Raises WorkloadError."""
        pidfd = os.pidfd_open(running.process.pid)
        try:
            if not wait_exit(pidfd, scale(_COMMAND_S)):
                raise self._failed(instance, f"it did not end within {scale(_COMMAND_S):g} s")
        finally:
            os.close(pidfd)
        running.returned_ns = time.monotonic_ns()
        if program_status(running):
            raise self._failed(instance, f"it ended with exit status {running.status}")

    def _failed(self, instance: Instance, what: str) -> WorkloadError:
        self._output.flush(instance.name)
        said = "\n".join(last_lines(instance.log)) or "(nothing)"
        return WorkloadError(f"start {instance.name} by {self.label}: {what}", f"what was printed last:\n{said}")

    def started(self, instance: Instance, timeout_s: float) -> Started:
        """Return the phases, once the workload's command has been executed. Raises WorkloadError when it never is."""
        running = self._running[instance.name]
        process = running.process
        if self._peer.is_seen:
            first_ns, running.pid = self._await_first(instance, running, timeout_s)
        elif self._peer.detaches:
            first_ns, running.pid = running.returned_ns, self._read_pid(instance, running)
        else:
            first_ns, running.pid = process.executed_ns, process.pid
        if self._peer.detaches and not self._peer.monitors and not await_adoption(running.pid, timeout_s):
            raise self._failed(instance, f"its parent did not end within {timeout_s:g} s")
        with suppress(ProcessLookupError):  # it has ended already, as alive will say
            running.pidfd = os.pidfd_open(running.pid)
        with suppress(OSError):
            running.workload = find_cgroup(running.pid)
        return Started(
            {
                "request": running.requested_ns,
                "created": min(process.cloned_ns, first_ns),
                "program": min(process.executed_ns, first_ns),
                "first_process": first_ns,
            }
        )

    def _read_pid(self, instance: Instance, running: Running) -> int:
        try:
            return int((running.place.folder / PID_FILE).read_text())
        except (OSError, ValueError) as error:
            raise self._failed(instance, "it wrote no process id") from error

    def _await_first(self, instance: Instance, running: Running, timeout_s: float) -> tuple[int, int]:
        assert self._watch is not None
        deadline_s = time.monotonic() + timeout_s
        while (first := self._watch.wait(instance.name, min(timeout_s, 0.05))) is None:
            if not self._peer.detaches and program_status(running) is not None:
                if (first := self._watch.find(instance.name)) is not None:
                    break
                raise self._failed(instance, f"{self._ending(running)} before the workload's first process")
            if time.monotonic() > deadline_s:
                raise self._failed(instance, f"no first process within {timeout_s:g} s")
        return first.at_ns, first.pid

    def alive(self, instance: Instance) -> bool:
        running = self._running.get(instance.name)
        if running is None or self._output.failure(instance.name):
            return False
        if not self._peer.detaches:
            return program_status(running) is None
        if not running.pid:
            return True  # it has just been started
        return running.pidfd >= 0 and not wait_exit(running.pidfd, 0)

    def ending(self, instance: Instance) -> str:
        running = self._running.get(instance.name)
        self._output.flush(instance.name)  # its last lines say more
        if (failure := self._output.failure(instance.name)) or running is None:
            return failure
        return self._ending(running)

    def _ending(self, running: Running) -> str:
        status = workload_status(running) if self._peer.detaches else program_status(running)
        if status is None:
            return ""
        return f"exit status {status if status >= 0 else 128 - status}"

    def stop(self, instance: Instance) -> None:
        running = self._running.pop(instance.name, None)
        if running is not None:
            running.undo.close()

    def _end_by_its_words(self, place: Place) -> None:
        for words in self._peer.ending(place, self._prepared()):
            _run(words, self._peer.environment(place))

    def cgroup(self, instance: Instance) -> Cgroup:
        name = cgroup_name(self._run_id, instance.name)
        running = self._running.get(instance.name)
        return SplitCgroup(name, hierarchies(), (running and running.workload) or f"{name}/workload")

    def overhead_cgroup(self, instance: Instance) -> Cgroup:
        """Return the cgroup of the peer's own processes; it is part of the instance's."""
        return Cgroup(f"{cgroup_name(self._run_id, instance.name)}/overhead")

    def overhead(self, instance: Instance) -> Overhead:
        if not self._peer.stays:
            return Overhead()
        cgroup = self.overhead_cgroup(instance)
        return Overhead(cgroup.memory_bytes(), cgroup.cpu_usage_ns())

    def shared_overhead(self) -> None:
        """Return nothing: no peer has a daemon."""

    def reclaim(self, instance: Instance) -> None:
        """Reclaim nothing: a container's free memory is the host's already."""

    def memory_parts(self, instance: Instance) -> Mapping[str, int]:
        cgroup, overhead = self.cgroup(instance), self.overhead_cgroup(instance)
        if not self._peer.stays:
            return breakdown.read_container_parts(cgroup)
        own = set(overhead.pids())
        of_workload = breakdown.read_mappings(pid for pid in cgroup.pids() if pid not in own)
        return breakdown.peer_parts(of_workload, breakdown.read_charge(cgroup), overhead.memory_bytes())

    def close(self) -> None:
        """End what still runs; remove the run's files."""
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, self._scratch, ignore_errors=True)
            undo.callback(sweep_run, self._run_id)
            undo.callback(self._output.close)
            for service in (self._watch, self._reader):
                if service is not None:
                    undo.callback(service.close)
            for running in self._running.values():  # the last one first, as others may share what it shares
                undo.callback(running.undo.close)
            self._running = {}
        self._watch = self._reader = None


def probe(peer: Peer) -> Found:
    """Find a peer's program, and what else it needs. Raises PrerequisiteError for what is missing or broken."""
    found = find(peer.program) if peer.program.name else Found("", "")
    peer.check(found)
    return found


def _parts(peer: Peer, place: Place) -> tuple[str, ...]:
    """Return the cgroups that the peer does not make itself."""
    if not place.split:
        return (place.workload,)
    workload = () if peer.limits else (place.workload,)
    return (place.ground, *workload, *(() if peer.splits else (place.overhead,)))


def _move(cgroup: Cgroup, pid: int) -> None:
    """Move a process, which has one thread and waits, into a cgroup. Raises OSError."""
    for directory in cgroup.directories():
        (directory / "cgroup.procs").write_text(str(pid))


def _run(words: tuple[str, ...], environment: tuple[str, ...]) -> None:
    """Run a peer's command that ends an instance; what it does not end is killed after it, whatever it says."""
    variables = dict(entry.split("=", 1) for entry in environment)
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=scale(_COMMAND_S),
            env=variables,
            check=False,
        )
