"""Manage containers whose cgroup is a systemd scope: put processes into the scope and tell systemd the limits."""

from __future__ import annotations

from msgspec.structs import replace

from runtime.cgroups import Cgroup, systemd
from runtime.cgroups.placing import hierarchies_for, remove_cgroup
from runtime.cgroups.resources import settings
from runtime.config.resources import Resources
from runtime.config.types import Config
from runtime.oci.caller import Caller
from runtime.oci.state import Record
from runtime.plan import steps as s
from runtime.plan.bundle import PLACED


def scope_of(record: Record) -> str:
    """Return the scope unit of a container's cgroup, or an empty string for a cgroup that we made ourselves."""
    return str(record.choices.get("scope", ""))


def in_scope(plan: s.Plan, record: Record) -> s.Plan:
    """Return the plan; if the container's cgroup is a scope, its new first step waits until systemd has put the parent
    process into that scope."""
    if not scope_of(record):
        return plan
    placed = s.Sync(PLACED, f"systemd puts this process into {scope_of(record)}")
    return replace(plan, parent=(placed, *plan.parent))


def at_first(resources: Resources) -> Resources:
    """Return a scope's initial limits: the launcher in it clones a process, for which a pids limit of 1 is too low."""
    return replace(resources, pids=None) if resources.pids and resources.pids.limit == 1 else resources


def complete_scope(config: Config, record: Record, caller: Caller) -> None:
    """Tell systemd the limits that ``at_first`` left out, once only the container's process is in the scope."""
    resources = config.linux.resources or Resources()
    if scope_of(record) and at_first(resources) != resources:
        update_scope(record, Resources(pids=resources.pids), caller)


def start_scope(config: Config, record: Record, pid: int, caller: Caller) -> None:
    """Have systemd make the container's scope with its limits, properties from annotations and the process in it."""
    limits = settings(hierarchies_for(record.cgroup), at_first(config.linux.resources or Resources()))
    properties = {name: (name, kind, value) for name, kind, value in systemd.properties(limits)}
    properties |= {name: (name, kind, value) for name, kind, value in systemd.annotated(config.annotations)}
    path = config.linux.cgroups_path
    systemd.start(systemd.scope_of(path, record.id, caller.bus), pid, properties.values(), caller.bus)


def update_scope(record: Record, resources: Resources, caller: Caller) -> None:
    """Tell systemd about changed limits if the container's cgroup is a scope."""
    if scope := scope_of(record):
        systemd.update(scope, systemd.properties(settings(hierarchies_for(record.cgroup), resources)), caller.bus)


def joins_through_systemd(record: Record) -> bool:
    """Tell whether only systemd may put a further process into the scope: an unprivileged user may not move a process
    there from elsewhere in the cgroup tree."""
    return bool(scope_of(record)) and systemd.is_unprivileged()


def join_scope(record: Record, cgroup: str, pid: int, caller: Caller) -> None:
    """Have systemd put a further process into the container's scope, or into ``cgroup`` below it."""
    below = cgroup.removeprefix(record.cgroup)
    systemd.attach(scope_of(record), below, pid, caller.bus)


def remove_container_cgroup(record: Record, caller: Caller) -> None:
    """Kill the processes left in a container's cgroup, remove the cgroup, and stop its scope if it has one."""
    remove_cgroup(Cgroup(record.cgroup, hierarchies_for(record.cgroup)), caller)
    if scope := scope_of(record):
        systemd.stop(scope, caller.bus)
