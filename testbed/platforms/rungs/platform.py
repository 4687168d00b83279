"""The platform of a rung: services behind the walls that a step of the history had, made by our own runtime."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from runtime import container, network
from runtime.cgroups import Cgroup, Hierarchies, hierarchies, require
from runtime.cgroups.hierarchy import UNIFIED
from runtime.config.types import Config
from runtime.container import Container, Joined
from runtime.errors import TestbedError, UsageError
from runtime.images.model import Image
from runtime.lease import cgroup_name
from runtime.plan.mounts import map_lines
from runtime.plan.network import Attachment, Connection, veth_requests
from runtime.plan.process import grantable_mask
from runtime.plan.steps import Plan
from runtime.spec import Spec
from testbed.lab import Lab
from testbed.platforms.container import ContainerPlatform
from testbed.platforms.peers.sweep import sweep_run
from testbed.platforms.protocol import Instance
from testbed.platforms.rungs.landlock import find_version
from testbed.platforms.rungs.needs import check_isolation, own_capabilities
from testbed.platforms.rungs.plans import HOST, Made, bounding_set, configure, join_plan, rung_plan
from testbed.rungs.model import WALLS, Rung
from testbed.rungs.walls import remove_walls
from testbed.scenario.model import Scenario


class RungPlatform(ContainerPlatform):
    """Instances behind the walls of one rung, ``without`` some of them (testbed.rungs.model.WALLS).

    Raises UsageError for a rung that is not made of walls, and for a wall that it has not.
    """

    def __init__(
        self, rung: Rung, run_id: str, scratch: Path, lab: Lab, without: Collection[str] = frozenset()
    ) -> None:
        super().__init__(run_id, lab)
        isolation = remove_walls(rung, without)
        assert rung.isolation is not None
        self.rung = rung
        self.name = rung.name
        missing = [wall for wall in WALLS if wall in without]
        self.label = f"{rung.name} without {', '.join(missing)}" if missing else rung.name
        self.made = Made(isolation, rung.isolation, str(scratch / rung.name), own_capabilities(), find_version())
        self._specs: dict[str, Spec] = {}

    @property
    def host_root(self) -> str:
        """Where an instance finds the host's files by their names, if it needs no way out to get there: "" for
        nowhere."""
        return HOST if self.made.isolation.root == "host" else ""

    def facts(self) -> Mapping[str, object]:
        isolation = self.made.isolation
        return {
            "kernel": platform.release(),
            "cgroups": hierarchies().mode,
            "root": f"overlay on tmpfs, entered by {isolation.root}"
            if isolation.root != "host"
            else "overlay on tmpfs",
            "namespaces": ", ".join(sorted({"mount", *isolation.namespaces})),
            "network": isolation.network,
            **({"quota": f"{isolation.quota} MiB of memory take what is written"} if isolation.quota else {}),
            "capabilities_that_the_host_lacks": ", ".join(self._lacking()) or "none",
            **({"landlock": f"version {self.made.landlock}"} if isolation.landlock else {}),
            "walls_left_out": self.label.partition(" without ")[2] or "none",
        }

    @property
    def _also(self) -> tuple[str, ...]:
        """The hierarchies that its cgroups are in beside those that limit: programs are attached to v2's."""
        return (UNIFIED,) if self.made.isolation.network == "address" else ()

    def _lacking(self) -> list[str]:
        return [name for name in bounding_set(self.made.isolation) if not grantable_mask((name,), self.made.grantable)]

    def prepare(self, scenario: Scenario, images: Mapping[str, Image]) -> None:
        """Make what all instances share; raise PrerequisiteError for what the host lacks."""
        self.prepare_rung()

    def prepare_rung(self) -> None:
        """Do what ``prepare`` does, which needs no scenario."""
        require(hierarchies())
        check_isolation(self.name, self.made.isolation)
        if self._also:
            above = replace(hierarchies(), wanted=(*hierarchies().wanted, *self._also))
            Cgroup(cgroup_name(self._run_id, "").rstrip("/"), above).make(delegate=False)
        Path(self.made.memory).mkdir(mode=0o700, parents=True, exist_ok=True)

    def _make(self, instance: Instance, stdout: int, attachment: Attachment) -> Container:
        name, spec = self._cgroup_name(instance), instance.spec
        if not Path(self.made.memory).is_dir():
            raise TestbedError(f"the platform {self.name} is used before it is prepared")
        make = partial(self.plan, spec, cgroup=name, attachment=attachment)
        answer = partial(admit, configure(self.made, spec), self._connection(spec, attachment))
        try:
            started = container.start_planned(make, name=name, stdout=stdout, also=self._also, answer=answer)
        except BaseException:
            self._take_address(spec)
            raise
        self._specs[instance.name] = spec
        return started

    def plan(self, spec: Spec, hierarchies: Hierarchies, *, cgroup: str, attachment: Attachment) -> Plan:
        """Return the plan by which a workload is started."""
        made = replace(self.made, clocks_s=read_clocks()) if "time" in self.made.isolation.namespaces else self.made
        return rung_plan(made, spec, hierarchies, cgroup, attachment)

    def _connection(self, spec: Spec, attachment: Attachment) -> Connection | None:
        own = self.made.isolation.network == "stack" and spec.link is not None
        return Connection(spec.link, attachment) if own and spec.link is not None else None

    def join(
        self, instance: Instance, words: tuple[str, ...], streams: tuple[int, ...], *, terminal: bool = False
    ) -> Joined:
        """Start a command beside an instance's workload, behind the same walls. Raises as ``container.join``."""
        spec, pid = instance.spec, self.first_pid(instance)
        if not pid:
            raise UsageError(f"execute {words[0]} in {instance.name}: it has ended")
        beside = replace(spec, process=replace(spec.process, args=words))
        plan = join_plan(self.made, beside, hierarchies(), pid, self._cgroup_name(instance), terminal=terminal)
        return container.join_planned(plan, streams=streams)

    def execute(self, instance: Instance, service: str, words: tuple[str, ...], timeout_s: float) -> int | None:
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            joined = self.join(instance, words, (nowhere, nowhere, nowhere))
        finally:
            os.close(nowhere)
        return container.wait_or_kill(joined.pid, timeout_s)

    def stop(self, instance: Instance) -> None:
        self._kill_beside(instance.name)
        super().stop(instance)
        if (spec := self._specs.pop(instance.name, None)) is not None:
            self._take_address(spec)

    def _kill_beside(self, name: str) -> None:
        """Kill all that an instance has started, where the kernel does not do that with its first process."""
        if name in self._running and "pid" not in self.made.isolation.namespaces:
            Cgroup(cgroup_name(self._run_id, name)).kill()

    def _take_address(self, spec: Spec) -> None:
        if spec.link is not None and self.made.isolation.network != "stack":
            message = network.delete_address(self._lab.bridge_index, spec.link.address)
            with suppress(TestbedError, OSError):  # the lab, with all its addresses, may be gone already
                network.request(message, f"take {spec.link.address} from the host's stack")

    def close(self) -> None:
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, self.made.memory, ignore_errors=True)
            undo.callback(sweep_run, self._run_id)
            undo.callback(super().close)
            for name in tuple(self._running):
                undo.callback(self._kill_beside, name)


def read_clocks() -> tuple[int, int]:
    """Return what the monotonic and the boot-time clock say, in whole seconds."""
    return int(time.clock_gettime(time.CLOCK_MONOTONIC)), int(time.clock_gettime(time.CLOCK_BOOTTIME))


def admit(config: Config, connection: Connection | None, pid: int) -> None:
    """Do for a process in a new user namespace what it may not do itself: write its maps of ids, and put one end of a
    veth pair into its network namespace. Raises TestbedError."""
    linux = config.linux
    for file, mappings in (("uid_map", linux.uid_mappings), ("gid_map", linux.gid_mappings)):
        try:
            Path(f"/proc/{pid}/{file}").write_text(map_lines(mappings))
        except OSError as error:
            raise TestbedError(f"write /proc/{pid}/{file}: {error.strerror}") from error
    if connection is None:
        return
    with Path(f"/proc/{pid}/ns/net").open() as namespace:
        for message, what in veth_requests(connection, namespace.fileno()):
            network.request(message, what)
