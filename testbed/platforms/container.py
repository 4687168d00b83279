"""The container platform: services as containers of our own runtime."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

from msgspec.structs import replace

from runtime import container
from runtime.cgroups import Cgroup, hierarchies, require
from runtime.container import Container
from runtime.errors import UsageError, WorkloadError
from runtime.images.model import Image
from runtime.lease import cgroup_name
from runtime.plan.network import Attachment
from runtime.plan.sharing import with_paths
from runtime.speed import factor
from testbed import breakdown
from testbed.lab import Lab
from testbed.platforms.output import ContainerOutput
from testbed.platforms.protocol import Instance, Started
from testbed.scenario.model import Scenario
from testbed.services.mounts import describe_shared

T = TypeVar("T")


class ContainerPlatform:
    """Namespaces, cgroups and an overlay of the image's layers, on the lab's bridge."""

    name = "container"
    label = "container"
    emulated = False
    virtual = False
    shared = False
    one_address = False
    executes = True
    signals = True

    def __init__(self, run_id: str, lab: Lab) -> None:
        self._run_id = run_id
        self._lab = lab
        self._running: dict[str, Container] = {}
        self._output = ContainerOutput()
        self._shared = ""

    @property
    def patience(self) -> float:
        return factor()

    def facts(self) -> Mapping[str, object]:
        shares = {"shares": f"bind mounts: {self._shared}"} if self._shared else {}
        return {"kernel": platform.release(), "cgroups": hierarchies().mode, "root": "overlay on tmpfs", **shares}

    def prepare(self, scenario: Scenario, images: Mapping[str, Image]) -> None:
        """Prepare nothing: containers mount the layers as they are in the store."""
        self._shared = describe_shared(scenario.services)
        require(hierarchies())

    def start(self, instance: Instance) -> None:
        self._running[instance.name] = self._with_output(instance, self._make)

    def _make(self, instance: Instance, stdout: int, attachment: Attachment) -> Container:
        spec = with_paths(instance.spec, partial(self._find_lender, instance))
        return container.start(spec, name=self._cgroup_name(instance), stdout=stdout, attachment=attachment)

    def _find_lender(self, instance: Instance, service: str) -> int:
        """Return the first process of another service of its copy. Raises WorkloadError when that has ended."""
        running = self._running.get(instance.lenders[service])
        if running is None or not running.alive():
            raise WorkloadError(f"start {instance.name}: {service}, whose namespaces it shares, has ended")
        return running.process.pid

    def _with_output(self, instance: Instance, make: Callable[[Instance, int, Attachment], T]) -> T:
        """Make something whose output goes to the instance's log, attached to the bridge."""
        with ExitStack() as undo:
            stdout = self._output.open(instance)
            undo.callback(self._output.end, instance.name)
            try:
                made = make(instance, stdout, self._lab.attach())
            finally:
                os.close(stdout)
            undo.pop_all()
        return made

    def started(self, instance: Instance, timeout_s: float) -> Started:
        """Return the phases, which are all known when ``start`` returns: it returns after the workload's execve."""
        running = self._running[instance.name]
        return Started(
            {
                "request": running.requested_ns,
                "created": running.process.cloned_ns,
                "first_process": running.process.executed_ns,
            }
        )

    def alive(self, instance: Instance) -> bool:
        running = self._running.get(instance.name)
        return running is not None and running.alive() and not self._output.failure(instance.name)

    def ending(self, instance: Instance) -> str:
        running = self._running.get(instance.name)
        self._output.flush(instance.name)  # its last lines say more
        status = running.wait(0) if running is not None else None
        if status is None:
            return self._output.failure(instance.name)
        return f"exit status {status}{self._describe_kills(instance)}"

    def _describe_kills(self, instance: Instance) -> str:
        """Say that the kernel has killed processes of an instance for want of memory, "" where it has not."""
        killed = self.cgroup(instance).memory_kills()
        limit_bytes = next(iter(instance.specs.values())).resources.memory_bytes
        if not killed or limit_bytes is None:
            return ""
        what = "a process" if killed == 1 else f"{killed} processes"
        return f", and the kernel has killed {what}: all {limit_bytes >> 20} MiB of memory that it may use were used"

    def exit_status(self, instance: Instance, timeout_s: float) -> int | None:
        running = self._running.get(instance.name)
        return None if running is None else running.wait(timeout_s)

    def first_pid(self, instance: Instance) -> int:
        running = self._running.get(instance.name)
        return running.process.pid if running is not None and running.alive() else 0

    def send_signal(self, instance: Instance, service: str, number: int) -> None:
        running = self._running.get(instance.name)
        if running is not None:
            running.send_signal(number)

    def execute(self, instance: Instance, service: str, words: tuple[str, ...], timeout_s: float) -> int | None:
        spec, pid = instance.specs[service], self.first_pid(instance)
        if not pid:
            raise UsageError(f"execute {words[0]} in {instance.name}: it has ended")
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            process = replace(spec.process, args=words)
            streams = (nowhere, nowhere, nowhere)
            joined = container.join(spec, process, pid=pid, cgroup=self._cgroup_name(instance), streams=streams)
        finally:
            os.close(nowhere)
        return container.wait_or_kill(joined.pid, timeout_s)

    def stop(self, instance: Instance) -> None:
        running = self._running.pop(instance.name, None)
        if running is not None:
            with ExitStack() as undo:
                undo.callback(self._output.end, instance.name)
                running.delete()

    def cgroup(self, instance: Instance) -> Cgroup:
        return Cgroup(self._cgroup_name(instance))

    def reclaim(self, instance: Instance) -> None:
        """Reclaim nothing: a container's free memory is the host's already."""

    def memory_parts(self, instance: Instance) -> Mapping[str, int]:
        return breakdown.read_container_parts(self.cgroup(instance))

    def close(self) -> None:
        """End what is still running."""
        with ExitStack() as undo:
            undo.callback(self._output.close)
            for running in self._running.values():  # the last one first: what shares another's processes ends before it
                undo.callback(running.delete)
            self._running = {}

    def _cgroup_name(self, instance: Instance) -> str:
        return cgroup_name(self._run_id, instance.name)
