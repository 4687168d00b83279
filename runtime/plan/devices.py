"""Turn the devices of a configuration into steps that make nodes in the container's /dev. Where the container's root
may not make nodes, they mount nodes made outside, or the host's own (runtime-spec 1.2, config-linux.md, "Default
Devices")."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from errno import EEXIST, EROFS
from functools import lru_cache

from runtime.config.types import Device, IDMapping, Linux, Mount
from runtime.plan import constants as k
from runtime.plan import steps as s
from runtime.plan.mounts import (
    FIRST_HELD,
    bind_step,
    inside,
    is_bind,
    may_share,
    plain_mount_steps,
    shared_tmpfs_steps,
)

_DEVICES = tuple(
    Device(f"/dev/{name}", "c", major, minor, 0o666)
    for name, major, minor in (
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    )
)
_LINKS = (
    ("pts/ptmx", "dev/ptmx"),
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
)
# Every host has this directory. The tmpfs covers it only in a mount namespace of the launcher's own.
_OUTSIDE = "/tmp"


def link_steps() -> list[s.Step]:
    """Make the symbolic links that every /dev has."""
    return [s.Symlink(text, path, inside=True, tolerate=(EEXIST, EROFS)) for text, path in _LINKS]


def every_device(devices: Sequence[Device]) -> list[Device]:
    """Return the devices that every container has and those of the configuration, which take precedence."""
    own = {device.path for device in devices}
    return [*(device for device in _DEVICES if device.path not in own), *devices]


def _node(device: Device, path: str, uid: int, gid: int, *, in_root: bool) -> s.Mknod:
    kind = stat.S_IFBLK if device.type == "b" else stat.S_IFIFO if device.type == "p" else stat.S_IFCHR
    mode = kind | (0o666 if device.file_mode is None else device.file_mode & 0o7777)
    tolerate = (EROFS,) if in_root else ()
    return s.Mknod(path, device.major, device.minor, mode, uid, gid, inside=in_root, tolerate=tolerate)


def node_steps(devices: Sequence[Device]) -> list[s.Step]:
    """Make the nodes of ``devices`` and the directories that contain them."""
    return [*_node_steps(tuple(devices))]


@lru_cache(maxsize=64)
def _node_steps(devices: tuple[Device, ...]) -> tuple[s.Step, ...]:
    steps: list[s.Step] = []
    for device in devices:
        target = inside(device.path)
        parents = target.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            made = s.Mkdir("/".join(parents[:depth]), tolerate=(EEXIST, EROFS), inside=True)
            if made not in steps:
                steps.append(made)
        steps.append(_node(device, target, device.uid or 0, device.gid or 0, in_root=True))
    return tuple(steps)


def host_node_steps(devices: Sequence[Device]) -> list[s.Step]:
    """Bind the host's own nodes, with the mode and owner that they have on the host."""
    attributes = k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NOEXEC
    return [s.Bind(device.path, inside(device.path), set=attributes) for device in devices]


def outside_node_steps(devices: Sequence[Device], linux: Linux) -> tuple[list[s.Step], list[s.Step]]:
    """Make nodes for a user namespace, whose root may not make any: the launcher makes them beforehand on a tmpfs in a
    mount namespace of its own, in which it stays, and the steps inside only attach them."""
    made: list[s.Step] = [
        s.Unshare(k.CLONE_NEWNS),
        s.Mount("", "/", "", k.MS_REC | k.MS_SLAVE),
        s.Mount("tmpfs", _OUTSIDE, "tmpfs", k.MS_NOSUID | k.MS_NOEXEC, "mode=0700"),
    ]
    attached: list[s.Step] = []
    for index, device in enumerate(devices):
        path, fd = f"{_OUTSIDE}/{index}", FIRST_HELD + index
        owner = _on_host(linux.uid_mappings, device.uid or 0), _on_host(linux.gid_mappings, device.gid or 0)
        made += [_node(device, path, *owner, in_root=False), s.OpenTree(path, fd)]
        attached.append(s.Bind(path, inside(device.path), held=fd))
    return [*made, s.Unmount(_OUTSIDE, k.MNT_DETACH)], attached


@lru_cache(maxsize=8)
def own_mounts(mounts: tuple[Mount, ...], memory: str = "") -> tuple[s.Step, ...]:
    """Mount file systems and make the devices that every container has, in a root that is held. Where ``memory``,
    the path of a tmpfs, is not empty, each tmpfs of ``mounts`` that may share becomes a directory of it."""
    steps: list[s.Step] = []
    for mount in mounts:
        if is_bind(mount):
            steps.append(bind_step(mount))
        else:
            steps += shared_tmpfs_steps(mount, memory) if memory and may_share(mount) else plain_mount_steps(mount)
    return (*steps, *node_steps(every_device(())), *link_steps())


def _on_host(mappings: Sequence[IDMapping], number: int) -> int:
    """Return the host's ID for one inside the container. An unmapped ID becomes the host's root, which is nobody
    inside."""
    for mapping in mappings:
        if 0 <= number - mapping.container_id < mapping.size:
            return mapping.host_id + number - mapping.container_id
    return 0
