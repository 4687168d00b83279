"""The mounts and devices of a configuration as steps; the root is held, and not entered yet (runtime-spec 1.3)."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Sequence
from errno import EEXIST, EROFS

from msgspec import Struct, field
from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.config import mount_options
from runtime.config.types import Device, IDMapping, Linux, Mount
from runtime.errors import UsageError
from runtime.plan import constants as k
from runtime.plan import steps as s

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
_FIRST_MAP, _FIRST_HELD = 112, 128


def inside(path: str) -> str:
    """A path of the configuration's, below the root and relative to it."""
    return posixpath.normpath("/" + path).lstrip("/") or "."


def map_lines(mappings: Sequence[IDMapping]) -> str:
    """Mappings as the lines of /proc/PID/uid_map and gid_map, user_namespaces(7)."""
    return "".join(f"{m.container_id} {m.host_id} {m.size}\n" for m in mappings)


class MountMaps(Struct):
    """The user namespaces from which mounts get their mapping of ids, one for each mapping there is."""

    linux: Linux
    steps: dict[tuple[str, str], s.NewUserNamespace] = field(default_factory=dict)

    def path(self, mount: Mount) -> str:
        """The namespace for a mount; without mappings of its own it has the container's. Raises UsageError."""
        own = mount if mount.uid_mappings else self.linux
        maps = (map_lines(own.uid_mappings), map_lines(own.gid_mappings))
        fd = _FIRST_MAP + len(self.steps)
        step = self.steps.setdefault(maps, s.NewUserNamespace(fd, *maps))
        if step.fd >= _FIRST_HELD:
            raise UsageError(f"config.json: mounts: more than {_FIRST_HELD - _FIRST_MAP} different mappings of ids")
        return f"/proc/self/fd/{step.fd}"


def mount_steps(mount: Mount, found: Hierarchies, cgroup: str, bundle: str, maps: MountMaps) -> list[s.Step]:
    """One entry of ``mounts``."""
    options = mount_options.parse(mount.options)
    target = inside(mount.destination)
    if mount.type in ("cgroup", "cgroup2"):
        return _cgroup_mount(target, options, found, cgroup)
    if options.bind or mount.type == "bind":
        mapped = bool(options.idmap or mount.uid_mappings)
        source = mount.source if mount.source.startswith("/") else os.path.join(bundle, mount.source)
        return [
            s.Bind(
                source,
                target,
                options.recursive,
                options.set,
                options.clear,
                options.set_all,
                options.clear_all,
                options.propagation,
                options.propagate_all,
                maps.path(mount) if mapped else "",
                options.idmap == "ridmap",
            )
        ]
    steps: list[s.Step] = [
        s.Mount(
            mount.source or mount.type,
            target,
            mount.type,
            options.flags,
            options.data,
            inside=True,
            copy_up=options.copy_up,
        )
    ]
    if options.propagation or options.set_all or options.clear_all:
        steps.append(
            s.MountAttributes(target, options.set_all, options.clear_all, options.propagation, True, inside=True)
        )
    return steps


def _cgroup_mount(target: str, options: mount_options.MountOptions, found: Hierarchies, cgroup: str) -> list[s.Step]:
    """The container's own cgroup in each hierarchy, as the root of what it sees, whatever its namespace."""
    tight = k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_NOEXEC
    attributes = options.set | tight
    if not cgroup:
        return [s.Mount("tmpfs", target, "tmpfs", options.flags, "mode=755", inside=True)]
    if not found.v1 and found.unified:
        return [s.Bind(f"{found.unified}/{cgroup}", target, set=attributes)]
    steps: list[s.Step] = [
        s.Mount("tmpfs", target, "tmpfs", k.MS_NOSUID | k.MS_NODEV | k.MS_NOEXEC, "mode=755", inside=True)
    ]
    steps += [s.Bind(f"{mount}/{cgroup}", f"{target}/{mount.name}", set=attributes) for mount in found.used]
    if options.set & k.MOUNT_ATTR_RDONLY:
        steps.append(s.MountAttributes(target, k.MOUNT_ATTR_RDONLY, inside=True))
    return steps


def device_steps(devices: Sequence[Device], *, bind: bool) -> list[s.Step]:
    """The devices that every container has and those of the configuration: made, or with ``bind`` the host's own."""
    steps: list[s.Step] = []
    own = {device.path for device in devices}
    for device in (*(d for d in _DEVICES if d.path not in own), *devices):
        target = inside(device.path)
        if bind:
            steps.append(s.Bind(device.path, target))
            continue
        kind = stat.S_IFBLK if device.type == "b" else stat.S_IFIFO if device.type == "p" else stat.S_IFCHR
        mode = kind | (0o666 if device.file_mode is None else device.file_mode & 0o7777)
        parents = target.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            made = s.Mkdir("/".join(parents[:depth]), tolerate=(EEXIST, EROFS), inside=True)
            if made not in steps:
                steps.append(made)
        steps.append(
            s.Mknod(
                target, device.major, device.minor, mode, device.uid or 0, device.gid or 0,
                inside=True, tolerate=(EEXIST, EROFS),
            )
        )  # fmt: skip
    steps += [s.Symlink(text, path, inside=True, tolerate=(EEXIST, EROFS)) for text, path in _LINKS]
    return steps


def held_first(mounts: list[s.Step]) -> tuple[list[s.Step], list[s.Step]]:
    """Split binds in two: their sources may lie where the root of a user namespace may not look, so they are copied
    before it is entered."""
    held: list[s.Step] = []
    attached: list[s.Step] = []
    for step in mounts:
        if isinstance(step, s.Bind):
            fd = _FIRST_HELD + len(held)
            held.append(s.HoldTree(step.source, fd, step.recursive, step.userns, step.map_all))
            step = replace(step, held=fd, userns="")
        attached.append(step)
    return held, attached
