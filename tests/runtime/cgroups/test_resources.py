"""linux.resources as control files: each field where its cgroup version has it, or an error that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.cgroups.hierarchy import ALL, Hierarchies
from runtime.cgroups.resources import cpu_weight, settings
from runtime.config.resources import (
    BlockIO,
    Cpu,
    HugepageLimit,
    Memory,
    Network,
    Pids,
    Resources,
    ThrottleDevice,
    WeightDevice,
)
from runtime.errors import UsageError

NAMES = ("memory", "cpu", "cpuset", "pids", "blkio", "devices", "hugetlb", "net_cls")
V1 = Hierarchies({name: Path("/cg") / name for name in NAMES}, None, frozenset(), ALL)
V2 = Hierarchies({}, Path("/cg"), frozenset(("memory", "cpu", "cpuset", "pids", "io", "hugetlb")), ALL)
LIMITS = Resources(
    memory=Memory(limit=1000, reservation=500, swap=1500),
    cpu=Cpu(shares=1024, quota=50_000, period=100_000, cpus="0-1", idle=1),
    pids=Pids(10),
    block_io=BlockIO(weight=100, throttle_read_bps_device=(ThrottleDevice(8, 0, 4096),)),
    hugepage_limits=(HugepageLimit("2MB", 1 << 21),),
)


def files(found: Hierarchies, resources: Resources, bfq: bool = True) -> dict[str, str]:
    return {file: value for _, file, value in settings(found, resources, lambda: bfq)}


def test_version_one() -> None:
    assert files(V1, LIMITS) == {
        "memory.limit_in_bytes": "1000",
        "memory.memsw.limit_in_bytes": "1500",
        "memory.soft_limit_in_bytes": "500",
        "cpu.shares": "1024",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "50000",
        "cpu.idle": "1",
        "cpuset.cpus": "0-1",
        "blkio.weight": "100",
        "blkio.throttle.read_bps_device": "8:0 4096",
        "pids.max": "10",
        "hugetlb.2MB.limit_in_bytes": "2097152",
    }


def test_version_two() -> None:
    assert files(V2, LIMITS) == {
        "memory.max": "1000",
        "memory.swap.max": "500",
        "memory.low": "500",
        "cpu.weight": "39",
        "cpu.max": "50000 100000",
        "cpu.idle": "1",
        "cpuset.cpus": "0-1",
        "io.bfq.weight": "100",
        "io.max": "8:0 rbps=4096",
        "pids.max": "10",
        "hugetlb.2MB.max": "2097152",
    }


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 39), (262144, 10000)])
def test_weights_span_the_range(shares: int, weight: int) -> None:
    assert cpu_weight(shares) == weight


@pytest.mark.parametrize(("weight", "own"), [(10, 1), (100, 910), (1000, 10000)])
def test_without_bfq_version_two_has_a_weight_of_its_own(weight: int, own: int) -> None:
    """As runc and crun convert it."""
    block = BlockIO(weight=weight, weight_device=(WeightDevice(8, 0, weight),))
    found = settings(V2, Resources(block_io=block), lambda: False)
    assert found == (("io", "io.weight", str(own)), ("io", "io.weight", f"8:0 {own}"))


@pytest.mark.parametrize("found", [V1, V2])
def test_zero_is_no_wish(found: Hierarchies) -> None:
    """Engines write it for what they leave out; as a limit of memory it would kill. runc 1.1.5 takes it so."""
    memory = Memory(limit=0, reservation=0, swap=0, kernel=0, kernel_tcp=0)
    cpu = Cpu(shares=0, quota=0, period=0, realtime_period=0, realtime_runtime=0, cpus="", mems="")
    assert files(found, Resources(memory=memory, cpu=cpu, block_io=BlockIO(weight=0))) == {}


def test_memory_and_swap_are_more_than_memory() -> None:
    assert files(V2, Resources(memory=Memory(limit=1000, swap=1000)))["memory.swap.max"] == "0"
    with pytest.raises(UsageError, match=r"memory.swap: 999, .* is below memory.limit, 1000"):
        settings(V2, Resources(memory=Memory(limit=1000, swap=999)))
    for limit in (None, -1):
        with pytest.raises(UsageError, match=r"memory.swap: 999 is memory and swap together, and memory has no limit"):
            settings(V2, Resources(memory=Memory(limit=limit, swap=999)))


def test_no_limit_has_a_word_of_its_own_on_version_two() -> None:
    assert files(V2, Resources(memory=Memory(limit=-1), pids=Pids(-1))) == {"memory.max": "max", "pids.max": "max"}


@pytest.mark.parametrize(
    ("found", "resources", "named"),
    [
        (V2, Resources(network=Network(class_id=1)), "linux.resources.network"),
        (V2, Resources(memory=Memory(swappiness=1)), "linux.resources.memory.swappiness"),
        (V2, Resources(cpu=Cpu(realtime_runtime=1)), "realtimeRuntime"),
        (V2, Resources(unified={"../x.y": "1"}), "not a control file"),
        (V1, Resources(unified={"memory.high": "1"}), "cgroup v1"),
    ],
)
def test_what_a_version_lacks_is_named(found: Hierarchies, resources: Resources, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        settings(found, resources)
