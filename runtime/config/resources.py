"""Limits: the ``linux.resources`` object (runtime-spec 1.2, config-linux.md, "Control groups")."""

from collections.abc import Mapping

from msgspec import field

from runtime.config.decode import Object


class DeviceRule(Object, frozen=True):
    """Allow or deny access to devices: ``type`` is a, b or c; None stands for every number; ``access`` of r, w, m."""

    allow: bool
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


class Memory(Object, frozen=True):
    """Bytes; -1 is no limit. ``swap`` counts memory and swap together, as cgroup v1 does."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    kernel_tcp: int | None = field(default=None, name="kernelTCP")
    swappiness: int | None = None
    disable_oom_killer: bool | None = field(default=None, name="disableOOMKiller")
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class Cpu(Object, frozen=True):
    """``shares`` relative weight; ``quota``, ``burst`` and ``period`` in microseconds; ``cpus`` and ``mems`` lists."""

    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str | None = None
    mems: str | None = None
    idle: int | None = None


class Pids(Object, frozen=True):
    """The largest number of tasks; 0 or less: no limit."""

    limit: int


class WeightDevice(Object, frozen=True):
    """A block device's weights, 10 to 1000."""

    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class ThrottleDevice(Object, frozen=True):
    """A block device's limit, in bytes or operations a second."""

    major: int
    minor: int
    rate: int


class BlockIO(Object, frozen=True):
    """Block devices: weights and throttles."""

    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: tuple[WeightDevice, ...] = ()
    throttle_read_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[ThrottleDevice, ...] = field(default=(), name="throttleReadIOPSDevice")
    throttle_write_iops_device: tuple[ThrottleDevice, ...] = field(default=(), name="throttleWriteIOPSDevice")


class HugepageLimit(Object, frozen=True):
    """``page_size`` as the kernel spells it, such as 2MB; ``limit`` in bytes."""

    page_size: str
    limit: int


class InterfacePriority(Object, frozen=True):
    """A network interface and the priority of what the cgroup sends through it."""

    name: str
    priority: int


class Network(Object, frozen=True):
    """net_cls and net_prio, which cgroup v1 alone has."""

    class_id: int | None = field(default=None, name="classID")
    priorities: tuple[InterfacePriority, ...] = ()


class Rdma(Object, frozen=True):
    """Limits of one RDMA device."""

    hca_handles: int | None = None
    hca_objects: int | None = None


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
