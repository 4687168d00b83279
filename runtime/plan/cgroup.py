"""Control groups as plan steps: make one, write its limits and device rules, join it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from runtime import spec
from runtime.cgroups.devices import CONFINED, DEFAULT_RULES, device_program, rule_files
from runtime.cgroups.hierarchy import Hierarchies
from runtime.cgroups.limits import v1_files, v2_files
from runtime.cgroups.resources import settings
from runtime.config.resources import DeviceRule, Resources
from runtime.errors import PrerequisiteError
from runtime.plan.steps import DeviceFilter, Mkdir, Open, Step, Write, WriteDescriptor

_TASKS_FD = 105


def device_steps(found: Hierarchies, name: str, rules: Sequence[DeviceRule]) -> tuple[Step, ...]:
    """Hold the cgroup ``name``, which exists, to the rules. Raises PrerequisiteError on a host that has no way to."""
    if not rules:
        return ()
    if mount := found.v1.get("devices"):
        return tuple(Write(f"{mount}/{name}/{file}", texts) for file, texts in rule_files(tuple(rules)))
    if found.unified is None:
        raise PrerequisiteError(
            "device rules: this host has neither cgroup v1's devices controller nor cgroup v2",
            "mount cgroup v2 at /sys/fs/cgroup",
        )
    return (DeviceFilter(f"{found.unified}/{name}", device_program(rules), f"{len(rules)} device rules"),)


def limit_steps(found: Hierarchies, name: str, resources: Resources) -> tuple[Step, ...]:
    """Write the limits into the cgroup ``name``, which exists. Raises PrerequisiteError without a controller."""
    steps: list[Step] = []
    for controller, file, value in settings(found, resources):
        mount = found.mount_of(controller)
        if mount is None:
            raise PrerequisiteError(f"{file} = {value}: this host has no {controller} controller")
        steps.append(Write(f"{mount}/{name}/{file}", (value,)))
    if resources.devices:
        steps += device_steps(found, name, (*resources.devices, *DEFAULT_RULES))
    return tuple(steps)


def workload_limit_steps(found: Hierarchies, name: str, resources: spec.Resources) -> tuple[Step, ...]:
    """Write the limits of the cgroup ``name`` that ``resources`` has, of the controllers that are wanted."""
    steps: list[Step] = []
    for controller, mount in ((c, found.mount_of(c)) for c in ("memory", "cpu", "pids")):
        if mount is not None and controller in found.wanted:
            files = v1_files(resources) if controller in found.v1 else v2_files(resources)
            steps += [Write(f"{mount}/{name}/{file}", (value,)) for file, value in files.get(controller, [])]
    return tuple(steps)


def create_steps(
    found: Hierarchies, name: str, resources: spec.Resources, *, confine_devices: bool
) -> tuple[Step, ...]:
    """Make the cgroup ``name`` in every hierarchy in use and write its limits.

    ``confine_devices`` holds it to the devices that every container has.
    """
    directories = [Mkdir(f"{mount}/{name}") for mount in found.used]
    devices = device_steps(found, name, CONFINED) if confine_devices else ()
    return (*directories, *workload_limit_steps(found, name, resources), *devices)


def join_steps(found: Hierarchies, name: str) -> tuple[Write, ...]:
    """Move the calling process, which has one thread, into the cgroup ``name`` of every v1 hierarchy.

    On v1 the thread writes itself to ``tasks``: a single thread moves without the kernel's global
    thread-group lock (kernel/cgroup/cgroup.c, cgroup_procs_write_start), whose grace period can cost
    milliseconds. On v2 the whole process is written to ``cgroup.procs``.
    """
    return tuple(Write(_joining(found, mount, name), ("0",)) for mount in found.used)


def _joining(found: Hierarchies, mount: Path, name: str) -> str:
    return f"{mount}/{name}/{'cgroup.procs' if mount == found.unified else 'tasks'}"


def join_in_two(
    found: Hierarchies, name: str, instead: Mapping[Path, str] = MappingProxyType({})
) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """The same for a launcher and for the process that it clones. Where tasks are counted only the latter goes, or a
    limit would have to leave room for both; the launcher opens the file while it can still be reached.

    ``instead`` has other names, by mount point; without a name of their own the other hierarchies are left alone.
    """
    counted = found.mount_of("pids")
    files = {mount: _joining(found, mount, own) for mount in found.used if (own := instead.get(mount, name))}
    last = files.pop(counted, "") if counted else ""
    opened = (Open(last, _TASKS_FD, os.O_WRONLY),) if last else ()
    joined = (WriteDescriptor(_TASKS_FD, b"0"),) if last else ()
    return (*(Write(file, ("0",)) for file in files.values()), *opened), joined
