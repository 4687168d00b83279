"""The configuration that ``spec`` writes: a shell with the runtime-spec's default mounts and few capabilities."""

from __future__ import annotations

from msgspec.structs import replace

from runtime.config.process import Capabilities, Process, Rlimit
from runtime.config.resources import DeviceRule, Resources
from runtime.config.types import Config, IDMapping, Linux, Mount, Namespace, Root
from runtime.spec import DEFAULT_MASKED_PATHS, DEFAULT_PATH, DEFAULT_READONLY_PATHS

OCI_VERSION = "1.3.0"
_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")  # as runc's and crun's
_TIGHT = ("nosuid", "noexec", "nodev")
_MOUNTS = (
    Mount("/proc", "proc", "proc"),
    Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    Mount("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    Mount("/dev/shm", "tmpfs", "shm", (*_TIGHT, "mode=1777", "size=65536k")),
    Mount("/dev/mqueue", "mqueue", "mqueue", _TIGHT),
    Mount("/sys", "sysfs", "sysfs", (*_TIGHT, "ro")),
    Mount("/sys/fs/cgroup", "cgroup", "cgroup", (*_TIGHT, "relatime", "ro")),
)


def default_config() -> Config:
    """Return root's configuration: all namespaces but user and time, and only the default devices."""
    process = Process(
        cwd="/",
        args=("sh",),
        env=(f"PATH={DEFAULT_PATH}", "TERM=xterm"),
        terminal=True,
        capabilities=Capabilities(_CAPABILITIES, _CAPABILITIES, (), _CAPABILITIES, ()),
        rlimits=(Rlimit("RLIMIT_NOFILE", 1024, 1024),),
        no_new_privileges=True,
    )
    linux = Linux(
        resources=Resources(devices=(DeviceRule(False, access="rwm"),)),
        namespaces=tuple(Namespace(kind) for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")),
        masked_paths=DEFAULT_MASKED_PATHS,
        readonly_paths=DEFAULT_READONLY_PATHS,
    )
    return Config(OCI_VERSION, Root("rootfs", True), process, "testbed", mounts=_MOUNTS, linux=linux)


def rootless_config(uid: int, gid: int) -> Config:
    """Return an unprivileged user's configuration. The user is root in a user namespace; nothing in it needs a second
    id or a cgroup."""
    config = default_config()
    mounts = tuple(
        replace(mount, options=tuple(o for o in mount.options if o != "gid=5"))
        for mount in config.mounts
        if mount.type not in ("cgroup", "sysfs")
    )
    sysfs = Mount("/sys", "none", "/sys", ("rbind", "nosuid", "noexec", "nodev", "ro"))
    linux = replace(
        config.linux,
        resources=None,
        namespaces=tuple(Namespace(kind) for kind in ("pid", "ipc", "uts", "mount", "cgroup", "user")),
        uid_mappings=(IDMapping(0, uid, 1),),
        gid_mappings=(IDMapping(0, gid, 1),),
    )
    return replace(config, mounts=(*mounts, sysfs), linux=linux)
