"""The whole configuration, with its mounts, hooks, namespaces and devices (runtime-spec 1.3)."""

from collections.abc import Mapping

from msgspec import field

from runtime.config.decode import DeviceMajor, DeviceMinor, Id, Int64, Nanoseconds, Object, Seconds, Uint32
from runtime.config.process import Process
from runtime.config.resources import Resources
from runtime.config.seccomp import Seccomp


class IDMapping(Object, frozen=True):
    """A mapping of ``size`` ids: those from ``container_id`` on inside are those from ``host_id`` on outside."""

    container_id: Id = field(name="containerID")
    host_id: Id = field(name="hostID")
    size: Uint32


class Root(Object, frozen=True):
    """The directory of the root file system; ``path`` is absolute or relative to the bundle."""

    path: str
    readonly: bool = False


class Mount(Object, frozen=True):
    """A mount; ``options`` are those of fstab(5) and the specification's table, ``destination`` is below the root."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()


class Hook(Object, frozen=True):
    """A program that runs at a point of the container's life. ``env`` None means that it inherits ours; ``timeout`` is
    in seconds."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] | None = None
    timeout: Seconds | None = None


class Hooks(Object, frozen=True):
    """The hooks, by the point of the container's life at which they run."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


class Namespace(Object, frozen=True):
    """A namespace of a type (pid, network, mount, ipc, uts, user, cgroup, time): a new one, or the one at ``path``."""

    type: str
    path: str = ""


class Device(Object, frozen=True):
    """A device node to make; ``type`` is c, b, u or p, and ``file_mode`` holds permission bits."""

    path: str
    type: str
    major: DeviceMajor = 0
    minor: DeviceMinor = 0
    file_mode: Uint32 | None = None
    uid: Id | None = None
    gid: Id | None = None


class TimeOffset(Object, frozen=True):
    """The offset of one clock of a time namespace."""

    secs: Int64 = 0
    nanosecs: Nanoseconds = 0


class Personality(Object, frozen=True):
    """The argument of personality(2): ``domain`` is LINUX or LINUX32, and no flags are defined yet."""

    domain: str
    flags: tuple[str, ...] = ()


class MemoryPolicy(Object, frozen=True):
    """Arguments of set_mempolicy(2): ``mode`` and ``flags`` are MPOL_ names, ``nodes`` is a list such as ``0-3,7``."""

    mode: str
    nodes: str = ""
    flags: tuple[str, ...] = ()


class NetDevice(Object, frozen=True):
    """A network interface that moves from the host to the container; an empty ``name`` keeps the host's name."""

    name: str = ""


class IntelRdt(Object, frozen=True):
    """Settings of Intel's Resource Director Technology."""

    clos_id: str = field(default="", name="closID")
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    enable_cmt: bool = field(default=False, name="enableCMT")
    enable_mbm: bool = field(default=False, name="enableMBM")
    schemata: tuple[str, ...] = ()
    enable_monitoring: bool = False


class Linux(Object, frozen=True):
    """The part of the configuration that only Linux has."""

    uid_mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()
    sysctl: Mapping[str, str] = field(default_factory=dict)
    resources: Resources | None = None
    cgroups_path: str = ""
    namespaces: tuple[Namespace, ...] = ()
    devices: tuple[Device, ...] = ()
    seccomp: Seccomp | None = None
    rootfs_propagation: str = ""
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    mount_label: str = ""
    intel_rdt: IntelRdt | None = None
    personality: Personality | None = None
    time_offsets: Mapping[str, TimeOffset] = field(default_factory=dict)
    memory_policy: MemoryPolicy | None = None
    net_devices: Mapping[str, NetDevice] = field(default_factory=dict)


class Config(Object, frozen=True):
    """The content of a bundle's config.json."""

    oci_version: str
    root: Root
    process: Process | None = None
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks = Hooks()
    annotations: Mapping[str, str] = field(default_factory=dict)
    linux: Linux = Linux()
