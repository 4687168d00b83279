"""Where a container's cgroup goes, in which hierarchies, and how it goes away."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from runtime.cgroups.cgroup import Cgroup
from runtime.cgroups.hierarchy import ALL, Hierarchies, hierarchies
from runtime.config.types import Config
from runtime.errors import TestbedError, UsageError
from runtime.frozen import replace

# Where cgroups go that no cgroupsPath places; it goes with the last of them.
CGROUP_PARENT = "testbed-runtime"


def all_hierarchies() -> Hierarchies:
    """The host's hierarchies, of which a container joins all."""
    return replace(hierarchies(), wanted=ALL)


def hierarchies_for(cgroup: str) -> Hierarchies:
    """The hierarchies in which this user may make the cgroup: for root all, else where it has been delegated."""
    found = all_hierarchies()
    if os.geteuid() == 0:
        return found

    def delegated(mount: Path) -> bool:
        above = next(path for path in (mount / cgroup).parents if path.is_dir())
        return above.is_relative_to(mount) and os.access(above, os.W_OK)

    v1 = {controller: mount for controller, mount in found.v1.items() if delegated(mount)}
    unified = found.unified if found.unified and delegated(found.unified) else None
    return replace(found, v1=v1, unified=unified, v2=found.v2 if unified else frozenset())


def cgroup_of(config: Config, container_id: str, systemd: bool = False) -> str:
    """The cgroup's name below each hierarchy's root. With ``systemd``, ``slice:prefix:name`` gives the directories that
    systemd would make; we make them ourselves. Raises UsageError for a path that leads up."""
    path = config.linux.cgroups_path
    if systemd and path.count(":") == 2:
        slice_, prefix, name = path.split(":")
        parts = slice_.removesuffix(".slice").split("-") if slice_ else ["system"]
        slices = ["-".join(parts[: depth + 1]) + ".slice" for depth in range(len(parts))]
        path = "/" + "/".join([*slices, f"{prefix}-{name}.scope"])
    if ".." in path.split("/"):
        raise UsageError(f"config.json: linux.cgroupsPath: {path!r} has a part that leads up")
    if path.startswith("/"):
        return path.strip("/") or f"{CGROUP_PARENT}/{container_id}"
    return f"{CGROUP_PARENT}/{path or container_id}"


def remove_cgroup(cgroup: Cgroup) -> None:
    """Kill what is in it and remove it, with the parent that was made for it."""
    if cgroup.exists():
        with suppress(TestbedError, OSError):
            cgroup.freeze(False)
        cgroup.kill()
    cgroup.remove()
    if cgroup.name.startswith(f"{CGROUP_PARENT}/"):
        for directory in cgroup.directories():
            with suppress(OSError):  # another container's cgroup is in it, or it is gone
                directory.parent.rmdir()
