"""This module decides where a container's cgroup goes and in which hierarchies, and removes it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runtime.cgroups import systemd
from runtime.cgroups.cgroup import Cgroup
from runtime.cgroups.hierarchy import Hierarchies, hierarchies
from runtime.config.types import Config
from runtime.effects import DIRECT, Effects
from runtime.errors import TestbedError, UsageError

# The parent of cgroups that no cgroupsPath places. It is removed with the last of them.
CGROUP_PARENT = "testbed-runtime"


def all_hierarchies() -> Hierarchies:
    """Return the host's hierarchies with all controllers wanted; a container joins all of them."""
    return hierarchies().whole


def hierarchies_for(cgroup: str) -> Hierarchies:
    """Return the hierarchies in which this user may make the cgroup.

    Root may make it in all of them, and another user only where a cgroup above it has been delegated.
    """
    on_host = all_hierarchies()
    if not systemd.is_unprivileged():
        return on_host

    def above(mount: Path) -> Path:
        return next(path for path in (mount / cgroup).parents if path.is_dir())

    def delegated(mount: Path) -> bool:
        return above(mount).is_relative_to(mount) and os.access(above(mount), os.W_OK)

    v1 = {controller: mount for controller, mount in on_host.v1.items() if delegated(mount)}
    unified = on_host.unified if on_host.unified and delegated(on_host.unified) else None
    v2 = (above(unified) / "cgroup.controllers").read_text().split() if unified else ()
    return replace(on_host, v1=v1, unified=unified, v2=frozenset(v2))


def cgroup_of(config: Config, container_id: str, as_systemd: bool = False) -> str:
    """Return the cgroup's name below each hierarchy's root.

    With ``as_systemd``, ``slice:prefix:name`` gives the directories that systemd would make, for a host where systemd
    does not run. Raises UsageError for a path with a ``..`` part.
    """
    path = config.linux.cgroups_path
    if as_systemd and path.count(":") == 2:
        path = "/" + systemd.Scope(*systemd.scope_names(path, container_id, False)).cgroup
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UsageError(f"config.json: linux.cgroupsPath: {path!r} has a part that leads up")
    if path.startswith("/") and parts:
        return "/".join(parts)
    return "/".join((CGROUP_PARENT, *(parts or (container_id,))))


class Placement(Struct, frozen=True):
    """The place of a container's cgroup.

    ``cgroup`` is empty when the container has none, and ``why`` then gives the reason. ``scope`` is the cgroup's
    systemd unit and is empty when we make the cgroup ourselves.
    """

    cgroup: str
    scope: str = ""
    why: str = ""


def _own_delegated(unified: Path, pid: int) -> str:
    """Return the topmost cgroup above that of process ``pid`` that this user may write to and that has no processes.

    Returns an empty string when there is none.
    """
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    topmost = ""
    for path in (unified / own, *(unified / own).parents):
        if not path.is_relative_to(unified) or not os.access(path, os.W_OK):
            break
        if path != unified and not (path / "cgroup.procs").read_text():
            topmost = str(path.relative_to(unified))
    return topmost


def place_cgroup(config: Config, container_id: str, wants_systemd: bool, bus: systemd.Bus, pid: int) -> Placement:
    """Decide where a container's cgroup goes: into a scope where systemd runs and is wanted, else into directories.

    An unprivileged user's container that no cgroupsPath places goes below one of that user's cgroups above that of the
    process ``pid``, or into a scope of the user's own manager. It may have no cgroup at all, and then ``why`` gives the
    reason. Raises UsageError for a path with a ``..`` part.
    """
    on_host, path = all_hierarchies(), config.linux.cgroups_path
    no_scope = systemd.missing(on_host, bus)
    if wants_systemd and not no_scope:
        scope = systemd.scope_of(path, container_id, bus)
        return Placement(scope.cgroup, scope.unit)
    cgroup = cgroup_of(config, container_id, wants_systemd)
    if not systemd.is_unprivileged() or path:
        usable = hierarchies_for(cgroup).used
        return Placement(cgroup) if usable else Placement("", why=f"{cgroup} is not below a cgroup of this user's")
    if on_host.unified and not on_host.v1 and (own := _own_delegated(on_host.unified, pid)):
        return Placement(f"{own}/{CGROUP_PARENT}/{container_id}")
    if not no_scope:
        scope = systemd.scope_of("", container_id, bus)
        return Placement(scope.cgroup, scope.unit)
    if hierarchies_for(cgroup).used:
        return Placement(cgroup)
    return Placement("", why=f"no cgroup has been delegated to it, and {no_scope}")


def remove_cgroup(cgroup: Cgroup, by: Effects = DIRECT) -> None:
    """Kill the processes in the cgroup and remove it, with the parent that was made for it."""
    directories = cgroup.directories()
    try:
        by.remove_directories(directories)  # enough when all processes have ended
    except OSError:
        if cgroup.pids():
            with suppress(TestbedError, OSError):
                cgroup.freeze(False, by=by)
        cgroup.kill(by=by)
        cgroup.remove(by=by)
    if cgroup.name.rpartition("/")[0].rpartition("/")[2] == CGROUP_PARENT:
        by.remove_directories((directory.parent for directory in directories), unless_busy=True)
