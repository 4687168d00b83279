"""Change the limits of an existing container, and report the resources that it uses."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from runtime.cgroups import Cgroup, Hierarchies
from runtime.cgroups.placing import hierarchies_for
from runtime.cgroups.resources import is_unified, settings
from runtime.config.resources import Resources
from runtime.errors import PrerequisiteError, UsageError
from runtime.oci.caller import Caller
from runtime.oci.scoped import update_scope
from runtime.oci.state import StateDir

# On cgroup v1 the kernel compares a memory limit with the memory in use and with the other limit.
_AGAINST = {
    "memory.limit_in_bytes": ("memory.usage_in_bytes", "memory.memsw.limit_in_bytes"),
    "memory.memsw.limit_in_bytes": ("memory.memsw.usage_in_bytes", "memory.limit_in_bytes"),
}
_SWAP = ("memory.memsw.limit_in_bytes", "memory.swap.max")


def completed(resources: Resources, cpu_max: str, memory_max: str) -> Resources:
    """Complete the resources with current values that cgroup v2 needs with the new ones, so that they stay as they are:
    quota and period share cpu.max, and the limit of swap is computed from that of memory. Removing the memory
    limit also removes the swap limit (as with runc)."""
    cpu, memory = resources.cpu, resources.memory
    quota, _, period = cpu_max.partition(" ")
    if cpu and cpu.quota and not cpu.period and period:
        cpu = replace(cpu, period=int(period))
    elif cpu and cpu.period and not cpu.quota and quota.isdigit():
        cpu = replace(cpu, quota=int(quota))
    if memory and memory.swap and not memory.limit and memory_max.isdigit():
        memory = replace(memory, limit=int(memory_max))
    if memory and memory.limit == -1 and not memory.swap:
        memory = replace(memory, swap=-1)
    return replace(resources, cpu=cpu, memory=memory)


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text().strip()
    return ""


def _check_usage(resources: Resources, cgroup: Cgroup) -> None:
    """Refuse a memory limit below the usage if the engine asks for that: on cgroup v2 it would kill; v1 refuses it."""
    memory = resources.memory
    if memory and memory.check_before_update and memory.limit and memory.limit > 0:
        used = cgroup.memory_bytes()
        if used > memory.limit:
            raise UsageError(f"update: memory.limit {memory.limit} is below what is in use, {used} bytes")


def _refused(path: Path, value: str, error: OSError) -> UsageError:
    if not path.exists():  # the error of open(2) says only that it may not be made
        return UsageError(f"write {value} to {path}: this kernel has no such control file")
    against = [f"{name} is {text}" for name in _AGAINST.get(path.name, ()) if (text := _read(path.with_name(name)))]
    return UsageError(f"write {value} to {path}: {error.strerror}", "; ".join(against))


def update(container: StateDir, resources: Resources, caller: Caller) -> None:
    """Change a container's limits. Raises UsageError for one that the kernel refuses; others may be set by then."""
    if resources.devices:
        raise UsageError("update: resources.devices: device rules do not change while a container is there")
    container.lock(caller)
    record = container.read()
    if not record.cgroup:
        raise PrerequisiteError(f"update container {container.id}: it has no cgroup", "run as root")
    hierarchies = hierarchies_for(record.cgroup)
    directory = hierarchies.unified / record.cgroup if hierarchies.unified and is_unified(hierarchies) else None
    was = (_read(directory / name) if directory else "" for name in ("cpu.max", "memory.max"))
    resources, asked = completed(resources, *was), resources
    if directory:
        _check_usage(resources, Cgroup(record.cgroup, hierarchies))
    update_scope(record, resources, caller)
    _write(hierarchies, record.cgroup, resources, caller, implied=resources != asked)


def _write(hierarchies: Hierarchies, cgroup: str, resources: Resources, caller: Caller, *, implied: bool) -> None:
    """Write all limits. ``implied`` says that ``completed`` added some; swap limits are then skipped on a host that
    does not account swap and so has no file for them."""
    refused: list[tuple[Path, str]] = []
    for controller, file, value in settings(hierarchies, resources):
        mount = hierarchies.mount_of(controller)
        if mount is None:
            raise PrerequisiteError(f"{file} = {value}: this host has no {controller} controller")
        path = mount / cgroup / file
        if implied and file in _SWAP and not path.exists():
            continue
        try:
            caller.write(path, value)
        except OSError:
            refused.append((path, value))
    # cgroup v1 never lets the memory limit exceed that of memory and swap: one refused now may fit after the other
    for path, value in refused:
        try:
            caller.write(path, value)
        except OSError as error:
            raise _refused(path, value, error) from error


def stats(container: StateDir) -> dict[str, object]:
    """Return one line of ``events --stats`` in runc's format."""
    from runtime.cgroups.stats import usage

    cgroup = container.read().cgroup
    return {"type": "stats", "id": container.id, "data": usage(Cgroup(cgroup, hierarchies_for(cgroup)))}
