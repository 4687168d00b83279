"""Limits: the ``linux.resources`` object (runtime-spec 1.3, config-linux.md, "Control groups")."""

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
    """Allow or deny access to devices: ``type`` is a, b or c, empty for a; None stands for every number; ``access`` is
    of r, w, m, empty for all."""

    allow: bool
    type: str = ""
    major: RuleMajor | None = None
    minor: RuleMinor | None = None
    access: str = ""


class Memory(Object, frozen=True):
    """Bytes; -1 is no limit. ``swap`` counts memory and swap together, as cgroup v1 does."""

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
    """``shares`` relative weight; ``quota``, ``burst`` and ``period`` in microseconds; ``cpus`` and ``mems`` lists."""

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
    """The largest number of tasks; 0 or less: no limit."""

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
    """Block devices: weights and throttles."""

    weight: Uint16 | None = None
    leaf_weight: Uint16 | None = None
    weight_device: tuple[WeightDevice, ...] = ()
    throttle_read_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[ThrottleDevice, ...] = field(default=(), name="throttleReadIOPSDevice")
    throttle_write_iops_device: tuple[ThrottleDevice, ...] = field(default=(), name="throttleWriteIOPSDevice")


class HugepageLimit(Object, frozen=True):
    """``page_size`` as the kernel spells it, such as 2MB; ``limit`` in bytes."""

    page_size: str
    limit: Uint64


class InterfacePriority(Object, frozen=True):
    """A network interface and the priority of what the cgroup sends through it."""

    name: str
    priority: Uint32


class Network(Object, frozen=True):
    """net_cls and net_prio, which cgroup v1 alone has."""

    class_id: Uint32 | None = field(default=None, name="classID")
    priorities: tuple[InterfacePriority, ...] = ()


class Rdma(Object, frozen=True):
    """Limits of one RDMA device."""

    hca_handles: Uint32 | None = None
    hca_objects: Uint32 | None = None


class Resources(Object, frozen=True):
    """All limits of a container; ``unified`` maps cgroup v2 file names to what is written there."""

    devices: tuple[DeviceRule, ...] = ()
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = field(default=None, name="blockIO")
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    network: Network | None = None
    rdma: Mapping[str, Rdma] = field(default_factory=dict)
    unified: Mapping[str, str] = field(default_factory=dict)
