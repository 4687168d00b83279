"""Make the plan steps for control groups: create one, write its limits and device rules, and join it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from types import MappingProxyType

from runtime.cgroups.addresses import address_programs
from runtime.cgroups.devices import DEFAULT_RULES, device_program, rule_files
from runtime.cgroups.hierarchy import Hierarchies
from runtime.cgroups.resources import settings
from runtime.config.resources import DeviceRule, Resources
from runtime.errors import PrerequisiteError
from runtime.plan.steps import CgroupProgram, Mkdir, Open, Step, Write, WriteDescriptor

_TASKS_FD = 105


def make_steps(hierarchies: Hierarchies, name: str) -> tuple[Step, ...]:
    """Make the cgroup ``name`` in every hierarchy in use. It must not exist yet, but its parent must."""
    return tuple(Mkdir(f"{mount}/{name}") for mount in hierarchies.used)


def device_steps(hierarchies: Hierarchies, name: str, rules: Sequence[DeviceRule]) -> tuple[Step, ...]:
    """Apply the rules to the existing cgroup ``name``. Raises PrerequisiteError on a host that cannot enforce them."""
    if not rules:
        return ()
    if mount := hierarchies.v1.get("devices"):
        return tuple(Write(f"{mount}/{name}/{file}", texts) for file, texts in rule_files(tuple(rules)))
    if hierarchies.unified is None:
        raise PrerequisiteError(
            "device rules: this host has neither cgroup v1's devices controller nor cgroup v2",
            "mount cgroup v2 at /sys/fs/cgroup",
        )
    words = f"{len(rules)} device rules"
    return (CgroupProgram(f"{hierarchies.unified}/{name}", device_program(rules), what=words),)


def address_steps(hierarchies: Hierarchies, name: str, address: IPv4Address) -> tuple[Step, ...]:
    """Keep the processes of the existing cgroup ``name`` to one address of their network namespace. Raises
    PrerequisiteError on a host without cgroup v2."""
    if hierarchies.unified is None:
        raise PrerequisiteError(
            f"keep a container to the address {address}: this host has no cgroup v2",
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified",
        )
    directory = f"{hierarchies.unified}/{name}"
    programs = address_programs(address)
    return tuple(CgroupProgram(directory, one.code, one.kind, one.attach, one.what) for one in programs)


def limit_steps(hierarchies: Hierarchies, name: str, resources: Resources) -> tuple[Step, ...]:
    """Write the limits into the existing cgroup ``name``. Raises PrerequisiteError where a controller is missing."""
    steps: list[Step] = []
    for controller, file, value in settings(hierarchies, resources):
        mount = hierarchies.mount_of(controller)
        if mount is None:
            raise PrerequisiteError(f"{file} = {value}: this host has no {controller} controller")
        steps.append(Write(f"{mount}/{name}/{file}", (value,)))
    if resources.devices:
        steps += device_steps(hierarchies, name, (*resources.devices, *DEFAULT_RULES))
    return tuple(steps)


def join_steps(hierarchies: Hierarchies, name: str) -> tuple[Write, ...]:
    """Move the calling process, which has one thread, into the cgroup ``name`` of every hierarchy in use.

    On v1 the thread writes itself to ``tasks``: a single thread moves without the kernel's global
    thread-group lock (kernel/cgroup/cgroup.c, cgroup_procs_write_start), whose grace period can cost
    milliseconds. On v2 the whole process is written to ``cgroup.procs``.
    """
    return tuple(Write(_joining(hierarchies, mount, name), ("0",)) for mount in hierarchies.used)


def clone_into(hierarchies: Hierarchies, name: str) -> str:
    """Return the directory of the cgroup ``name`` for a process to be cloned into (clone3(2), CLONE_INTO_CGROUP), on a
    host with v2 alone; "" on another, where it joins.

    Who joins on v2 waits for the kernel's global thread-group lock (``join_steps``), who is cloned does not.
    """
    return "" if hierarchies.v1 or hierarchies.unified is None else f"{hierarchies.unified}/{name}"


def _joining(hierarchies: Hierarchies, mount: Path, name: str) -> str:
    return f"{mount}/{name}/{'cgroup.procs' if mount == hierarchies.unified else 'tasks'}"


def join_in_two(
    hierarchies: Hierarchies, name: str, instead: Mapping[Path, str] = MappingProxyType({})
) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Join as ``join_steps`` does, in two parts: the launcher's steps, and those of the process that it clones.

    Only the clone joins the hierarchy that counts tasks (pids), or a limit would have to leave room for both. The
    launcher opens that file for it while the file can still be reached. ``instead`` gives other cgroup names by mount
    point; hierarchies whose name is empty are left alone.
    """
    counted = hierarchies.mount_of("pids")
    files = {
        mount: _joining(hierarchies, mount, own) for mount in hierarchies.used if (own := instead.get(mount, name))
    }
    last = files.pop(counted, "") if counted else ""
    opened = (Open(last, _TASKS_FD, os.O_WRONLY),) if last else ()
    joined = (WriteDescriptor(_TASKS_FD, b"0"),) if last else ()
    return (*(Write(file, ("0",)) for file in files.values()), *opened), joined
