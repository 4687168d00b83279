"""Turn the mounts of a configuration into steps, performed while the root is held open but not yet entered
(runtime-spec 1.3)."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Sequence
from functools import lru_cache

from msgspec import Struct, field
from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.config import mount_options
from runtime.config.default import DEFAULT_MOUNTS
from runtime.config.types import IDMapping, Linux, Mount
from runtime.errors import UsageError
from runtime.plan import constants as k
from runtime.plan import steps as s

_FIRST_MAP, FIRST_HELD = 112, 128
DEV = "dev"


@lru_cache(maxsize=64)
def inside(path: str) -> str:
    """Normalize a path from the configuration and make it relative to the root."""
    return posixpath.normpath("/" + path).lstrip("/") or "."


def map_lines(mappings: Sequence[IDMapping]) -> str:
    """Format mappings as the lines of /proc/PID/uid_map and gid_map (user_namespaces(7))."""
    return "".join(f"{m.container_id} {m.host_id} {m.size}\n" for m in mappings)


class MountMaps(Struct):
    """Collects the user namespaces from which mounts get their ID mappings, one for each distinct mapping."""

    linux: Linux
    steps: dict[tuple[str, str], s.NewUserNamespace] = field(default_factory=dict)

    def path(self, mount: Mount) -> str:
        """Return the path of the namespace for a mount. A mount without mappings of its own uses the container's.

        Raises UsageError when there are more different mappings than descriptors for them."""
        own = mount if mount.uid_mappings else self.linux
        maps = (map_lines(own.uid_mappings), map_lines(own.gid_mappings))
        fd = _FIRST_MAP + len(self.steps)
        step = self.steps.setdefault(maps, s.NewUserNamespace(fd, *maps))
        if step.fd >= FIRST_HELD:
            raise UsageError(f"config.json: mounts: more than {FIRST_HELD - _FIRST_MAP} different mappings of ids")
        return f"/proc/self/fd/{step.fd}"


def is_bind(mount: Mount) -> bool:
    """Return whether an entry of ``mounts`` is a bind mount, which shows something of the host."""
    return mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options


def shown_sysfs(mount: Mount) -> Mount:
    """Replace a new sysfs, which only the user namespace that owns the network namespace may mount, by a bind mount of
    the host's /sys. The protective options of the sysfs apply to all mounts below /sys."""
    protection = tuple(f"r{name}" for name in ("ro", "nosuid", "noexec", "nodev") if name in mount.options)
    return replace(mount, type="bind", source="/sys", options=("rbind", *protection))


def is_tmpfs(mount: Mount) -> bool:
    """Return whether an entry of ``mounts`` is a new tmpfs."""
    return mount.type == "tmpfs" and not is_bind(mount)


def may_share(mount: Mount) -> bool:
    """Return whether a new tmpfs may be a directory of another one: unless it is said how large it is, or whose. That
    of those that every container has is no more than usual."""
    words = (word for option in mount.options for word in option.split(","))
    said = any("=" in word and not word.startswith("mode=") for word in words)
    return is_tmpfs(mount) and (not said or mount in DEFAULT_MOUNTS)


@lru_cache(maxsize=64)
def shared_tmpfs_steps(mount: Mount, memory: str) -> tuple[s.Step, ...]:
    """Make a tmpfs as a directory of the tmpfs at ``memory``, which the root has already.

    For every superblock the kernel keeps 16 bytes in each memory cgroup of the host (mm/shrinker.c), so the cost of
    one more superblock in each of N containers grows as N squared. The directory's size limit is the shared tmpfs's.
    """
    options, target = mount_options.parse(mount.options), inside(mount.destination)
    mode = next((word[5:] for word in options.data.split(",") if word.startswith("mode=")), "1777")
    directory = f"{memory}/{target.replace('/', '-')}"
    attributes = options.set & ~k.MOUNT_ATTR_ATIME
    clear = k.MOUNT_ATTR_NODEV & ~attributes  # the shared tmpfs is nodev
    return (s.Mkdir(directory, int(mode, 8)), s.Bind(directory, target, set=attributes, clear=clear))


def mount_steps(mount: Mount, hierarchies: Hierarchies, cgroup: str, bundle: str, maps: MountMaps) -> list[s.Step]:
    """Return the steps for one entry of ``mounts``."""
    options = mount_options.parse(mount.options)
    target = inside(mount.destination)
    if is_bind(mount):
        mapped = bool(options.idmap or mount.uid_mappings)
        source = mount.source if mount.source.startswith("/") else os.path.join(bundle, mount.source)
        return [bind_step(replace(mount, source=source), maps.path(mount) if mapped else "")]
    if mount.type in ("cgroup", "cgroup2"):
        steps = _cgroup_mount(mount.type, target, options, hierarchies, cgroup)
    else:
        steps = [*plain_mount_steps(mount)]
    if options.propagation or options.set_all or options.clear_all:
        steps.append(
            s.MountAttributes(target, options.set_all, options.clear_all, options.propagation, True, inside=True)
        )
    return steps


@lru_cache(maxsize=64)
def plain_mount_steps(mount: Mount) -> tuple[s.Step, ...]:
    """Mount a new file system, without the steps that change its mount afterwards."""
    options, target = mount_options.parse(mount.options), inside(mount.destination)
    flags = options.flags & ~k.MS_RDONLY if target == DEV else options.flags  # device nodes are made there first
    source = mount.source or mount.type
    return (s.Mount(source, target, mount.type, flags, options.data, inside=True, copy_up=options.copy_up),)


def bind_step(mount: Mount, userns: str = "") -> s.Bind:
    """Return the step for a bind mount, whose source is an absolute path; ``userns`` is that of the namespace whose ids
    it is to have, or empty."""
    options = mount_options.parse(mount.options)
    return s.Bind(
        mount.source,
        inside(mount.destination),
        options.recursive,
        options.set,
        options.clear,
        options.set_all,
        options.clear_all,
        options.propagation,
        options.propagate_all,
        userns,
        options.idmap == "ridmap",
    )


def _cgroup_mount(
    kind: str, target: str, options: mount_options.MountOptions, hierarchies: Hierarchies, cgroup: str
) -> list[s.Step]:
    """Mount the container's own cgroup in each hierarchy as the root of what it sees, whatever its cgroup namespace.
    The type ``cgroup2`` mounts only the v2 hierarchy, even where the host has v1 beside it."""
    tight = k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_NOEXEC
    attributes = options.set | tight
    if not cgroup:
        return [s.Mount("tmpfs", target, "tmpfs", options.flags, "mode=755", inside=True)]
    if kind == "cgroup2" or (not hierarchies.v1 and hierarchies.unified):
        if options.data or hierarchies.unified not in hierarchies.used:
            flags = options.flags | k.MS_NOSUID | k.MS_NODEV | k.MS_NOEXEC
            return [s.Mount("cgroup2", target, "cgroup2", flags, options.data, inside=True)]
        return [s.Bind(f"{hierarchies.unified}/{cgroup}", target, set=attributes)]
    steps: list[s.Step] = [
        s.Mount("tmpfs", target, "tmpfs", k.MS_NOSUID | k.MS_NODEV | k.MS_NOEXEC, "mode=755", inside=True)
    ]
    steps += [s.Bind(f"{mount}/{cgroup}", f"{target}/{mount.name}", set=attributes) for mount in hierarchies.used]
    if options.set & k.MOUNT_ATTR_RDONLY:
        steps.append(s.MountAttributes(target, k.MOUNT_ATTR_RDONLY, inside=True))
    return steps


def propagations(name: str) -> tuple[int, int]:
    """Return what ``linux.rootfsPropagation`` asks for, as two propagation types: the type that the copy of the host's
    tree gets before anything is mounted in it, and the one that the container's own root gets once it is entered (0:
    no further change).

    The copy leaves the host's peer groups in any case, so later mounts and unmounts do not reach the host. As with
    runc, a mount copied from a tree of slave or of private mounts is of the same type.
    """
    recursive = name not in mount_options.PROPAGATION
    kind = mount_options.PROPAGATION[name.removeprefix("r") if recursive else name] if name else k.MS_SLAVE
    if kind == k.MS_SLAVE or (kind == k.MS_PRIVATE and recursive):
        return k.MS_REC | kind, 0
    return k.MS_REC | k.MS_SLAVE, kind | (k.MS_REC if recursive else 0)


def is_shared(step: s.Bind) -> bool:
    """Return whether the bind mount is to be a peer of its source."""
    return step.propagation == k.MS_SHARED


def held_first(
    mounts: list[s.Step], first: int, chosen: Callable[[s.Bind], bool], propagation: int
) -> tuple[list[s.Step], list[s.Step]]:
    """Split each bind that is ``chosen`` in two: the launcher copies the source in the host's mount namespace, and a
    later step attaches the copy.

    Two kinds of binds need this: those whose source lies where the root of a user namespace may not look, and those
    that are to be peers of the host's mounts, as the container's mount namespace has no such peers. The copies are
    held as descriptors from ``first`` on; with ``propagation`` 0 they stay peers.
    """
    held: list[s.Step] = []
    attached: list[s.Step] = []
    for step in mounts:
        if isinstance(step, s.Bind) and not step.held and chosen(step):
            fd = first + len(held)
            held.append(s.OpenTree(step.source, fd, step.recursive, step.userns, step.map_all, propagation))
            step = replace(step, held=fd, userns="")
        attached.append(step)
    return held, attached
