"""The ``linux.resources`` object: a container's limits (runtime-spec 1.3, config-linux.md, "Control groups")."""

from collections.abc import Mapping

from msgspec import field

from runtime.config.decode import (
    Bytes,
    DeviceMajor,
    DeviceMinor,
    Int64,
    Object,
    RuleMajor,
    RuleMinor,
    Swappiness,
    Uint16,
    Uint32,
    Uint64,
)


class DeviceRule(Object, frozen=True):
    """A rule that allows or denies access to devices.

    ``type`` is a, b or c, and empty means a. A number of None means every number. ``access`` consists of the letters
    r, w and m, and empty means all three.
    """

    allow: bool
    type: str = ""
    major: RuleMajor | None = None
    minor: RuleMinor | None = None
    access: str = ""


class Memory(Object, frozen=True):
    """Limits in bytes, of which -1 means none. ``swap`` counts memory and swap together, as cgroup v1 does."""

    limit: Bytes | None = None
    reservation: Bytes | None = None
    swap: Bytes | None = None
    kernel: Bytes | None = None
    kernel_tcp: Bytes | None = field(default=None, name="kernelTCP")
    swappiness: Swappiness | None = None
    disable_oom_killer: bool | None = field(default=None, name="disableOOMKiller")
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class Cpu(Object, frozen=True):
    """``shares`` is a relative weight; ``quota``, ``burst`` and ``period`` are microseconds; ``cpus`` and ``mems`` are
    lists such as ``0-3,7``."""

    shares: Uint64 | None = None
    quota: Int64 | None = None
    burst: Uint64 | None = None
    period: Uint64 | None = None
    realtime_runtime: Int64 | None = None
    realtime_period: Uint64 | None = None
    cpus: str | None = None
    mems: str | None = None
    idle: Int64 | None = None


class Pids(Object, frozen=True):
    """The largest number of tasks; 0 or less means no limit."""

    limit: Int64


class WeightDevice(Object, frozen=True):
    """A block device's weights, 10 to 1000."""

    major: DeviceMajor
    minor: DeviceMinor
    weight: Uint16 | None = None
    leaf_weight: Uint16 | None = None


class ThrottleDevice(Object, frozen=True):
    """A block device's limit, in bytes or operations a second."""

    major: DeviceMajor
    minor: DeviceMinor
    rate: Uint64


class BlockIO(Object, frozen=True):
    """The weights and throttles of block devices."""

    weight: Uint16 | None = None
    leaf_weight: Uint16 | None = None
    weight_device: tuple[WeightDevice, ...] = ()
    throttle_read_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[ThrottleDevice, ...] = field(default=(), name="throttleReadIOPSDevice")
    throttle_write_iops_device: tuple[ThrottleDevice, ...] = field(default=(), name="throttleWriteIOPSDevice")


class HugepageLimit(Object, frozen=True):
    """The limit of huge pages of one size, in bytes; ``page_size`` is the kernel's name, such as 2MB."""

    page_size: str
    limit: Uint64


class InterfacePriority(Object, frozen=True):
    """A network interface and the priority of what the cgroup sends through it."""

    name: str
    priority: Uint32


class Network(Object, frozen=True):
    """The settings of net_cls and net_prio, controllers that only cgroup v1 has."""

    class_id: Uint32 | None = field(default=None, name="classID")
    priorities: tuple[InterfacePriority, ...] = ()


class Rdma(Object, frozen=True):
    """The limits of one RDMA device."""

    hca_handles: Uint32 | None = None
    hca_objects: Uint32 | None = None


class Resources(Object, frozen=True):
    """All limits of a container; ``unified`` maps the names of cgroup v2 files to the text to write."""

    devices: tuple[DeviceRule, ...] = ()
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = field(default=None, name="blockIO")
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    network: Network | None = None
    rdma: Mapping[str, Rdma] = field(default_factory=dict)
    unified: Mapping[str, str] = field(default_factory=dict)
