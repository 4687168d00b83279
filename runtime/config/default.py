"""What containers have unless they are told otherwise, and the configuration that the command ``spec`` writes."""

from __future__ import annotations

from msgspec.structs import replace

from runtime.config.process import Capabilities, Process, Rlimit
from runtime.config.resources import DeviceRule, Resources
from runtime.config.types import Config, IDMapping, Linux, Mount, Namespace, Root

OCI_VERSION = "1.3.0"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The capabilities that containers get by default: docker's and podman's list
# (moby, oci/caps/defaults.go).
DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)

# moby, oci/defaults.go; the runtime-spec's own example has the same lists.
DEFAULT_MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
DEFAULT_READONLY_PATHS = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)
_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")  # as runc's and crun's
_TIGHT = ("nosuid", "noexec", "nodev")
# Of /dev/shm; docker's, runc's and crun's, too.
DEFAULT_SHM_BYTES = 64 << 20
# runtime-spec 1.3, config-linux.md, "Default Filesystems", with runc's options.
DEFAULT_MOUNTS = (
    Mount("/proc", "proc", "proc"),
    Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    Mount("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    Mount("/dev/shm", "tmpfs", "shm", (*_TIGHT, "mode=1777", f"size={DEFAULT_SHM_BYTES >> 10}k")),
    Mount("/dev/mqueue", "mqueue", "mqueue", _TIGHT),
    Mount("/sys", "sysfs", "sysfs", (*_TIGHT, "ro")),
)
_CGROUPS = Mount("/sys/fs/cgroup", "cgroup", "cgroup", (*_TIGHT, "relatime", "ro"))


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
    return Config(
        OCI_VERSION, Root("rootfs", True), process, "testbed", mounts=(*DEFAULT_MOUNTS, _CGROUPS), linux=linux
    )


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
