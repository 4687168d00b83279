"""This module briefly describes one workload for either platform and expands it into an OCI configuration.

A container and a virtual machine are two ways of executing a ``Spec``, so nothing in here says which one it will be.
Whoever starts it works from ``configuration``, which cannot express the image's ``layers``, the ``link`` and the names
of ``hosts``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface

from msgspec import Struct
from msgspec.structs import replace

from runtime.config import process as oci
from runtime.config import resources as limits
from runtime.config.default import (
    DEFAULT_CAPABILITIES,
    DEFAULT_MASKED_PATHS,
    DEFAULT_MOUNTS,
    DEFAULT_PATH,
    DEFAULT_READONLY_PATHS,
    OCI_VERSION,
)
from runtime.config.process import Rlimit, User
from runtime.config.types import Config, Device, Linux, Mount, Namespace, Root
from runtime.errors import UsageError
from runtime.plan.constants import CAPABILITIES
from runtime.seccomp.default import default_profile

__all__ = [
    "CPU_PERIOD_USEC",
    "Link",
    "Process",
    "Resources",
    "Rlimit",
    "Spec",
    "User",
    "configuration",
    "cpu_quota_usec",
]

# The kernel gives its first process these limits (INR_OPEN_CUR, INR_OPEN_MAX). With them a container and a guest agree,
# and neither gets more than any host allows.
DEFAULT_RLIMITS = (Rlimit("RLIMIT_NOFILE", 1024, 4096),)
# The kernel gives a new cgroup this period (kernel/sched/fair.c, default_cfs_period), so it need not be written. On v1
# each such write makes the kernel walk all cgroups of the host.
CPU_PERIOD_USEC = 100_000
_NAMESPACES = ("mount", "pid", "uts", "ipc", "cgroup", "network")
# Of a workload that has the network namespace of whoever starts it.
CALLERS_NETWORK = (("network", ""),)
# Where shared memory is.
SHM = "/dev/shm"
_CONFINED = (limits.DeviceRule(False),)  # limited to the devices that every container has
_PROC, *_OTHERS = DEFAULT_MOUNTS
WORKLOAD_MOUNTS = (replace(_PROC, options=("nosuid", "noexec", "nodev")), *_OTHERS)


class Process(Struct, frozen=True):
    """The command to execute: ``args`` (argv), ``env`` (``NAME=value``), ``cwd`` (absolute) and its ``user``.

    The ``capabilities`` are all that it and its children can ever have; root has them from the start.
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = (f"PATH={DEFAULT_PATH}",)
    cwd: str = "/"
    user: User = User()
    capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES
    rlimits: tuple[Rlimit, ...] = DEFAULT_RLIMITS
    no_new_privileges: bool = True


class Resources(Struct, frozen=True):
    """Limits on RAM (``memory_bytes``), processors (``cpus``, a number) and tasks (``pids``). None means no limit."""

    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None


class Link(Struct, frozen=True):
    """The workload's network interface ``eth0``: its address with prefix, its MAC and its default gateway."""

    address: IPv4Interface
    mac: str
    gateway: IPv4Address | None = None


class GrantedDevice(Struct, frozen=True):
    """A device of the host that a container has too: the node there, and what may be done with it (r, w, m)."""

    node: Device
    access: str = "rwm"


class Spec(Struct, frozen=True):
    """One workload, ready to run on either platform.

    ``layers`` are the absolute paths of the image's layer directories, bottom first; ``hosts`` maps
    names to addresses and becomes ``/etc/hosts``; ``link`` None leaves only the loopback interface.
    ``shared`` are the kinds of namespaces that are not its own, each with whose it has: "" for the caller's, the name
    of another workload (``runtime.plan.sharing`` has it joined), or the path of one. With the IPC namespace comes its
    owner's /dev/shm; without ``shm`` it has none at all. One of its own holds ``shm_bytes``, None for what is usual.
    ``seccomp`` puts the default profile in front of the kernel, be it the host's or a guest's. ``mounts`` are made
    besides those that every workload has; a guest can have none of the host's directories. The root of a
    ``read_only`` workload takes no writes. ``resolver`` is the text of its /etc/resolv.conf, empty for the
    image's own. ``sysctls`` are settings of its own namespaces, or of its guest's kernel; a guest has none of the
    host's ``devices``.
    """

    process: Process
    layers: tuple[str, ...]
    hostname: str
    resources: Resources = Resources()
    link: Link | None = None
    hosts: tuple[tuple[str, str], ...] = ()
    shared: tuple[tuple[str, str], ...] = ()
    shm: bool = True
    shm_bytes: int | None = None
    masked_paths: tuple[str, ...] = DEFAULT_MASKED_PATHS
    readonly_paths: tuple[str, ...] = DEFAULT_READONLY_PATHS
    seccomp: bool = True
    mounts: tuple[Mount, ...] = ()
    read_only: bool = False
    resolver: str = ""
    sysctls: tuple[tuple[str, str], ...] = ()
    devices: tuple[GrantedDevice, ...] = ()

    @property
    def all_mounts(self) -> tuple[Mount, ...]:
        """The mounts of the configuration, in order, but for what another workload lends."""
        ipc = dict(self.shared).get("ipc")
        if self.shm and ipc is None:
            return (*_size_shm(self.shm_bytes), *self.mounts)
        usual = tuple(mount for mount in WORKLOAD_MOUNTS if mount.destination != SHM)
        callers = Mount(SHM, "bind", SHM, ("rbind", "nosuid", "noexec", "nodev"))
        return (*usual, *((callers,) if self.shm and ipc == "" else ()), *self.mounts)


def _size_shm(size: int | None) -> tuple[Mount, ...]:
    """Return the mounts that every workload has, with a /dev/shm of ``size`` bytes."""
    if size is None:
        return WORKLOAD_MOUNTS
    (usual,) = (one for one in WORKLOAD_MOUNTS if one.destination == SHM)
    kept = (option for option in usual.options if not option.startswith("size="))
    sized = replace(usual, options=(*kept, f"size={size}"))
    return tuple(sized if one is usual else one for one in WORKLOAD_MOUNTS)


def cpu_quota_usec(cpus: float) -> int:
    """Return the quota per period for ``cpus`` processors, in microseconds: at least 1 ms, the kernel's minimum."""
    return max(1000, round(cpus * CPU_PERIOD_USEC))


def configured_process(process: Process) -> oci.Process:
    """Return the configuration's ``process``.

    A process that is not root loses its capabilities when it changes user, so it starts with none; the bounding set
    stays. Raises UsageError for an empty command or an unknown capability.
    """
    if not process.args or not process.args[0]:
        raise UsageError("no command: neither the image nor the caller names one")
    bounding = process.capabilities
    if unknown := sorted(set(bounding) - set(CAPABILITIES)):
        raise UsageError(f"unknown capabilities: {', '.join(unknown)}")
    own = bounding if process.user.uid == 0 else ()
    return oci.Process(
        cwd=process.cwd,
        args=process.args,
        env=process.env,
        user=process.user,
        capabilities=oci.Capabilities(bounding=bounding, effective=own, permitted=own),
        rlimits=process.rlimits,
        no_new_privileges=process.no_new_privileges,
    )


def configured_limits(resources: Resources) -> limits.Resources:
    """Return the ``linux.resources`` of a workload, which may use the devices that every container has."""
    return limits.Resources(
        devices=_CONFINED,
        memory=None if resources.memory_bytes is None else limits.Memory(limit=resources.memory_bytes),
        cpu=None if resources.cpus is None else limits.Cpu(quota=cpu_quota_usec(resources.cpus)),
        pids=None if resources.pids is None else limits.Pids(resources.pids),
    )


def _with_devices(wanted: limits.Resources, devices: Sequence[GrantedDevice]) -> limits.Resources:
    allowed = (limits.DeviceRule(True, one.node.type, one.node.major, one.node.minor, one.access) for one in devices)
    return replace(wanted, devices=(*wanted.devices, *allowed))


@lru_cache(maxsize=64)
def configuration(spec: Spec) -> Config:
    """Return the OCI configuration of a workload, whose root is made of its layers.

    Raises UsageError for an empty command or an unknown capability.
    """
    shared = dict(spec.shared)
    kinds = ((kind, shared.get(kind)) for kind in _NAMESPACES)
    linux = Linux(
        sysctl=dict(spec.sysctls),
        resources=_with_devices(configured_limits(spec.resources), spec.devices),
        devices=tuple(one.node for one in spec.devices),
        namespaces=tuple(Namespace(kind, path or "") for kind, path in kinds if path != ""),
        seccomp=default_profile(spec.process.capabilities) if spec.seccomp else None,
        rootfs_propagation="rprivate",
        masked_paths=spec.masked_paths,
        readonly_paths=spec.readonly_paths,
    )
    return Config(
        OCI_VERSION,
        Root("rootfs", spec.read_only),
        configured_process(spec.process),
        "" if "uts" in shared else spec.hostname,
        mounts=spec.all_mounts,
        linux=linux,
    )
