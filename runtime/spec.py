"""The part of the OCI runtime-spec (1.3) that both platforms run from, as frozen data.

Field names are the specification's, in snake case. One ``Spec`` describes a workload; a container
and a virtual machine are two ways of executing it, so nothing in here says which one it will be.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

from msgspec import Struct

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


class User(Struct, frozen=True):
    """Numeric identity of the first process: ``uid``, ``gid`` and the supplementary ``groups``."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    umask: int = 0o022


class Rlimit(Struct, frozen=True):
    """A resource limit by its setrlimit(2) name, such as ``RLIMIT_NOFILE``."""

    type: str
    soft: int
    hard: int


# What the kernel gives its first process (INR_OPEN_CUR, INR_OPEN_MAX), so that a container and a guest
# agree, and no more than any host allows.
DEFAULT_RLIMITS = (Rlimit("RLIMIT_NOFILE", 1024, 4096),)


class Process(Struct, frozen=True):
    """What is executed: ``args`` (argv), ``env`` (``NAME=value``), ``cwd`` (absolute), and as whom."""

    args: tuple[str, ...]
    env: tuple[str, ...] = (f"PATH={DEFAULT_PATH}",)
    cwd: str = "/"
    user: User = User()
    capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES
    rlimits: tuple[Rlimit, ...] = DEFAULT_RLIMITS
    no_new_privileges: bool = True


class Resources(Struct, frozen=True):
    """Limits. ``memory_bytes`` of RAM, ``cpus`` as a number of processors, ``pids`` tasks; None: no limit."""

    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None


class Link(Struct, frozen=True):
    """The workload's network interface ``eth0``: its address with prefix, its MAC and its default gateway."""

    address: IPv4Interface
    mac: str
    gateway: IPv4Address | None = None


class Spec(Struct, frozen=True):
    """One workload, ready to run on either platform.

    ``layers`` are the absolute paths of the image's layer directories, bottom first; ``hosts`` maps
    names to addresses and becomes ``/etc/hosts``; ``link`` None leaves only the loopback interface.
    ``host_network`` shares the caller's network namespace instead (the services of a pod need it). ``seccomp``: the
    default profile stands before the kernel, be it the host's or a guest's.
    """

    process: Process
    layers: tuple[str, ...]
    hostname: str
    resources: Resources = Resources()
    link: Link | None = None
    hosts: tuple[tuple[str, str], ...] = ()
    host_network: bool = False
    masked_paths: tuple[str, ...] = DEFAULT_MASKED_PATHS
    readonly_paths: tuple[str, ...] = DEFAULT_READONLY_PATHS
    seccomp: bool = True
