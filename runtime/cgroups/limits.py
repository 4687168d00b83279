"""Resource limits as plan steps: the files to write, for cgroup v1 and v2."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from runtime.cgroups.devices import CONFINED, device_steps
from runtime.cgroups.hierarchy import Hierarchies
from runtime.plan.steps import Mkdir, Open, Step, Write, WriteDescriptor
from runtime.spec import Resources

# What the kernel gives a new cgroup (kernel/sched/fair.c, default_cfs_period), so v1 need not be told: each write there
# makes it walk all cgroups of the host.
CPU_PERIOD_USEC = 100_000
_TASKS_FD = 105


def cpu_quota_usec(cpus: float) -> int:
    """The share of each period that ``cpus`` processors are; at least 1 ms, the kernel's minimum."""
    return max(1000, round(cpus * CPU_PERIOD_USEC))


def _v1_files(resources: Resources) -> dict[str, list[tuple[str, str]]]:
    files: dict[str, list[tuple[str, str]]] = {}
    if resources.memory_bytes is not None:
        files["memory"] = [("memory.limit_in_bytes", str(resources.memory_bytes))]
    if resources.cpus is not None:
        files["cpu"] = [("cpu.cfs_quota_us", str(cpu_quota_usec(resources.cpus)))]
    if resources.pids is not None:
        files["pids"] = [("pids.max", str(resources.pids))]
    return files


def _v2_files(resources: Resources) -> dict[str, list[tuple[str, str]]]:
    files: dict[str, list[tuple[str, str]]] = {}
    if resources.memory_bytes is not None:
        files["memory"] = [("memory.max", str(resources.memory_bytes))]
    if resources.cpus is not None:
        files["cpu"] = [("cpu.max", f"{cpu_quota_usec(resources.cpus)} {CPU_PERIOD_USEC}")]
    if resources.pids is not None:
        files["pids"] = [("pids.max", str(resources.pids))]
    return files


def limit_steps(found: Hierarchies, name: str, resources: Resources) -> tuple[Step, ...]:
    """Write the limits of the cgroup ``name`` that ``resources`` has, of the controllers that are wanted."""
    steps: list[Step] = []
    for controller, mount in ((c, found.mount_of(c)) for c in ("memory", "cpu", "pids")):
        if mount is not None and controller in found.wanted:
            files = _v1_files(resources) if controller in found.v1 else _v2_files(resources)
            steps += [Write(f"{mount}/{name}/{file}", (value,)) for file, value in files.get(controller, [])]
    return tuple(steps)


def create_steps(found: Hierarchies, name: str, resources: Resources, *, confine_devices: bool) -> tuple[Step, ...]:
    """Make the cgroup ``name`` in every hierarchy in use and write its limits.

    ``confine_devices`` holds it to the devices that every container has.
    """
    directories = [Mkdir(f"{mount}/{name}") for mount in found.used]
    devices = device_steps(found, name, CONFINED) if confine_devices else ()
    return (*directories, *limit_steps(found, name, resources), *devices)


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
    joined = (WriteDescriptor(_TASKS_FD, "0"),) if last else ()
    return (*(Write(file, ("0",)) for file in files.values()), *opened), joined


def delegations(unified: Path, name: str, controllers: frozenset[str]) -> tuple[tuple[Path, str], ...]:
    """The (file, controllers) writes that give the cgroups below ``name`` their controllers, on v2, from the top."""
    path = Path(name)
    delegating = [unified, *(unified / part for part in (*list(path.parents)[-2::-1], path) if str(part) != ".")]
    words = " ".join(f"+{controller}" for controller in sorted(controllers))
    return tuple((cgroup / "cgroup.subtree_control", words) for cgroup in delegating)
