"""This module translates an OCI configuration's linux.resources into writes to cgroup v1 or v2 control files.

The fields are those of config-linux.md. The conversions to v2 are those that the runtime-spec's implementers agreed on
(crun.1, "cgroup v2"). Engines write 0 for values that they do not want to set, so a 0 for memory, shares or weights
sets nothing, as with runc.
"""

from __future__ import annotations

from collections.abc import Callable

from runtime.cgroups.hierarchy import Hierarchies, has_bfq
from runtime.config.resources import BlockIO, Memory, Resources, ThrottleDevice
from runtime.errors import UsageError

Setting = tuple[str, str, str]  # controller, file, value


def _numbers(*pairs: tuple[str, str, int | str | None]) -> list[Setting]:
    return [(controller, file, str(value)) for controller, file, value in pairs if value is not None]


def _v1(resources: Resources) -> list[Setting]:
    memory, cpu = resources.memory, resources.cpu
    writes: list[Setting] = []
    if memory:
        writes += _numbers(
            ("memory", "memory.limit_in_bytes", memory.limit or None),
            ("memory", "memory.memsw.limit_in_bytes", memory.swap or None),
            ("memory", "memory.soft_limit_in_bytes", memory.reservation or None),
            ("memory", "memory.kmem.limit_in_bytes", memory.kernel or None),
            ("memory", "memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp or None),
            ("memory", "memory.swappiness", memory.swappiness),
            ("memory", "memory.oom_control", 1 if memory.disable_oom_killer else None),
        )
    if cpu:
        writes += _numbers(
            ("cpu", "cpu.shares", cpu.shares or None),
            ("cpu", "cpu.cfs_period_us", cpu.period or None),
            ("cpu", "cpu.cfs_quota_us", cpu.quota or None),
            ("cpu", "cpu.cfs_burst_us", cpu.burst),
            ("cpu", "cpu.rt_period_us", cpu.realtime_period or None),
            ("cpu", "cpu.rt_runtime_us", cpu.realtime_runtime or None),
            ("cpu", "cpu.idle", cpu.idle),
            ("cpuset", "cpuset.cpus", cpu.cpus or None),
            ("cpuset", "cpuset.mems", cpu.mems or None),
        )
    if resources.block_io:
        writes += _v1_block(resources.block_io)
    if resources.network:
        writes += _numbers(("net_cls", "net_cls.classid", resources.network.class_id))
        writes += [("net_prio", "net_prio.ifpriomap", f"{p.name} {p.priority}") for p in resources.network.priorities]
    if resources.unified:
        raise UsageError("config.json: linux.resources.unified: this host has its controllers on cgroup v1")
    return writes


def _v1_block(block: BlockIO) -> list[Setting]:
    writes = _numbers(
        ("blkio", "blkio.weight", block.weight or None), ("blkio", "blkio.leaf_weight", block.leaf_weight or None)
    )
    for device in block.weight_device:
        numbers = f"{device.major}:{device.minor}"
        writes += _numbers(
            ("blkio", "blkio.weight_device", device.weight and f"{numbers} {device.weight}"),
            ("blkio", "blkio.leaf_weight_device", device.leaf_weight and f"{numbers} {device.leaf_weight}"),
        )
    for name, devices in _throttles(block):
        file = f"blkio.throttle.{name}_device"
        writes += [("blkio", file, f"{d.major}:{d.minor} {d.rate}") for d in devices]
    return writes


def _throttles(block: BlockIO) -> tuple[tuple[str, tuple[ThrottleDevice, ...]], ...]:
    return (
        ("read_bps", block.throttle_read_bps_device),
        ("write_bps", block.throttle_write_bps_device),
        ("read_iops", block.throttle_read_iops_device),
        ("write_iops", block.throttle_write_iops_device),
    )


def _limit(value: int | None) -> str | None:
    return "max" if value == -1 else str(value) if value else None


def cpu_weight(shares: int) -> int:
    """Convert v1's shares (2 to 262,144) linearly to cgroup v2's weight (1 to 10,000)."""
    return 1 + (shares - 2) * 9999 // 262142


def io_weight(weight: int) -> int:
    """Convert a blockIO weight (10 to 1000) linearly to cgroup v2's own weight (1 to 10,000)."""
    return 1 + (weight - 10) * 9999 // 990


def _swap(memory: Memory) -> str | None:
    """Return the limit for swap alone, as cgroup v2 counts it; OCI's limit is the sum of memory and swap.

    Raises UsageError when memory has no limit to subtract, or when the sum is below that limit.
    """
    if not memory.swap or memory.swap == -1:
        return _limit(memory.swap)
    if not memory.limit or memory.limit == -1:
        raise UsageError(f"memory.swap: {memory.swap} is memory and swap together, and memory has no limit")
    if memory.swap < memory.limit:
        raise UsageError(f"memory.swap: {memory.swap}, memory and swap together, is below memory.limit, {memory.limit}")
    return str(memory.swap - memory.limit)


def _v2(resources: Resources, bfq: Callable[[], bool]) -> list[Setting]:
    memory, cpu = resources.memory, resources.cpu
    writes: list[Setting] = []
    if memory:
        for name in ("kernel", "kernel_tcp", "swappiness", "disable_oom_killer"):
            if getattr(memory, name):
                raise UsageError(f"config.json: linux.resources.memory.{name}: cgroup v2 has no such setting")
        writes += _numbers(
            ("memory", "memory.max", _limit(memory.limit)),
            ("memory", "memory.swap.max", _swap(memory)),
            ("memory", "memory.low", _limit(memory.reservation)),
        )
    if cpu:
        if cpu.realtime_period or cpu.realtime_runtime:
            raise UsageError("config.json: linux.resources.cpu.realtimeRuntime: cgroup v2 has no such setting")
        quota = "max" if not cpu.quota or cpu.quota < 0 else str(cpu.quota)
        writes += _numbers(
            ("cpu", "cpu.weight", cpu_weight(cpu.shares) if cpu.shares else None),
            ("cpu", "cpu.max", f"{quota} {cpu.period or 100_000}" if cpu.quota or cpu.period else None),
            ("cpu", "cpu.max.burst", cpu.burst),
            ("cpu", "cpu.idle", cpu.idle),
            ("cpuset", "cpuset.cpus", cpu.cpus or None),
            ("cpuset", "cpuset.mems", cpu.mems or None),
        )
    if resources.block_io:
        writes += _v2_block(resources.block_io, bfq)
    if resources.network and (resources.network.class_id or resources.network.priorities):
        raise UsageError("config.json: linux.resources.network: cgroup v2 has neither net_cls nor net_prio")
    for file, value in resources.unified.items():
        if "/" in file or "." not in file:
            raise UsageError(f"config.json: linux.resources.unified: {file!r} is not a control file's name")
        writes += [(file.split(".")[0], file, line) for line in value.splitlines()]
    return writes


def _v2_block(block: BlockIO, bfq: Callable[[], bool]) -> list[Setting]:
    if block.leaf_weight:
        raise UsageError("config.json: linux.resources.blockIO.leafWeight: cgroup v2 has no such setting")
    weights = [("", block.weight), *((f"{d.major}:{d.minor} ", d.weight) for d in block.weight_device)]
    writes: list[Setting] = []
    for device, weight in weights:
        if weight and bfq():
            writes.append(("io", "io.bfq.weight", f"{device}{weight}"))
        elif weight:
            writes.append(("io", "io.weight", f"{device}{io_weight(weight)}"))
    for name, devices in _throttles(block):
        key = {"read_bps": "rbps", "write_bps": "wbps", "read_iops": "riops", "write_iops": "wiops"}[name]
        writes += [("io", "io.max", f"{d.major}:{d.minor} {key}={d.rate}") for d in devices]
    return writes


def is_unified(hierarchies: Hierarchies) -> bool:
    """Tell whether limits are set through cgroup v2."""
    return "memory" in hierarchies.v2 or not hierarchies.v1


def settings(hierarchies: Hierarchies, resources: Resources, bfq: Callable[[], bool] = has_bfq) -> tuple[Setting, ...]:
    """Return what to write to which file on this host. Raises UsageError for a field that its cgroup version lacks.

    ``bfq`` says whether the kernel has BFQ, whose weights have their own file on cgroup v2.
    """
    wanted = _v2(resources, bfq) if is_unified(hierarchies) else _v1(resources)
    if resources.pids is not None:
        wanted.append(("pids", "pids.max", str(resources.pids.limit) if resources.pids.limit > 0 else "max"))
    for huge in resources.hugepage_limits:
        suffix = "limit_in_bytes" if "hugetlb" in hierarchies.v1 else "max"
        wanted.append(("hugetlb", f"hugetlb.{huge.page_size}.{suffix}", str(huge.limit)))
    for device, rdma in resources.rdma.items():
        words = [f"hca_handle={rdma.hca_handles}"] if rdma.hca_handles is not None else []
        words += [f"hca_object={rdma.hca_objects}"] if rdma.hca_objects is not None else []
        wanted.append(("rdma", "rdma.max", " ".join([device, *words])))
    return tuple(wanted)
