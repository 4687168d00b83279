"""The walls of a rung of containers, and what is left of it when some are taken away on purpose."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from msgspec.structs import replace

from runtime.errors import UsageError
from testbed.rungs.model import WALLS, Isolation, Rung

_KINDS = ("pid", "ipc", "uts", "cgroup", "user", "time")
# Walls that cannot be left out, each with its reason: no rung is run without them.
ALWAYS_THERE: Mapping[str, str] = MappingProxyType(
    {
        "mount": "the image's layers must be mounted somewhere, and without a mount namespace that were the host's own"
        " tree, which is nobody's to change; what a rung without it would see is tried by those of lmctfy, at /host",
        "kernel": "there is no container without its host's kernel; only machines have one of their own",
    }
)
_NO_ROOT = {"pivot_root": "chroot", "chroot": "host"}


def _without_kind(isolation: Isolation, kind: str) -> Isolation:
    return replace(isolation, namespaces=tuple(one for one in isolation.namespaces if one != kind))


# What each wall's absence makes of an isolation. A root that is pivoted to is only changed to (chroot) without the
# wall.
_WITHOUT: Mapping[str, Callable[[Isolation], Isolation]] = MappingProxyType(
    {
        "root": lambda one: replace(one, root=_NO_ROOT.get(one.root, one.root)),
        "network": lambda one: replace(_without_kind(one, "network"), network="host"),
        "address": lambda one: replace(one, network="host"),
        "capabilities": lambda one: replace(one, capabilities="all"),
        "seccomp": lambda one: replace(one, system_calls="all"),
        "landlock": lambda one: replace(one, landlock=False),
        "devices": lambda one: replace(one, devices="host"),
        "masks": lambda one: replace(one, masks=False, read_only_sysfs=False),
        "limits": lambda one: replace(one, limits=()),
        "quota": lambda one: replace(one, quota=0),
        "no_new_privileges": lambda one: replace(one, no_new_privileges=False),
    }
)


def find_walls(isolation: Isolation) -> frozenset[str]:
    """Return the walls that an isolation has: those of WALLS that can be left out of it."""
    there = {kind for kind in _KINDS if kind in isolation.namespaces}
    return frozenset(there | {wall for wall, change in _WITHOUT.items() if _has(isolation, wall, change)})


def _has(isolation: Isolation, wall: str, change: Callable[[Isolation], Isolation]) -> bool:
    if wall in ("network", "address"):
        return isolation.network == ("stack" if wall == "network" else "address")
    return change(isolation) != isolation


def remove_walls(rung: Rung, walls: Collection[str]) -> Isolation:
    """Return what a rung is made of without ``walls``. Raises UsageError for one that it has not."""
    isolation = rung.isolation
    if isolation is None:
        raise UsageError(f"{rung.name}: it is not made of walls that could be left out", "name a rung of containers")
    there = find_walls(isolation)
    if unknown := sorted(set(walls) - there):
        what = "no such wall is known" if set(unknown) - set(WALLS) else "the rung has no such wall"
        what = next((f"it cannot be left out: {ALWAYS_THERE[wall]}" for wall in unknown if wall in ALWAYS_THERE), what)
        has = ", ".join(wall for wall in WALLS if wall in there)
        raise UsageError(f"{rung.name} without {', '.join(unknown)}: {what}", f"it has {has or 'none'}")
    for wall in sorted(walls):
        isolation = _WITHOUT[wall](isolation) if wall in _WITHOUT else _without_kind(isolation, wall)
    return isolation
