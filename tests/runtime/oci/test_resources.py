"""Limits that change while a container is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtime.cgroups.placing import all_hierarchies
from runtime.config.resources import Cpu, Memory, Resources
from runtime.oci.resources import completed
from tests.runtime.command_line import Runtime
from tests.waiting import until

pytestmark = pytest.mark.root


def control(oci: Runtime, controller: str, file: str) -> Path:
    mount = all_hierarchies().mount_of(controller)
    assert mount is not None
    return mount / str(oci.config()["linux"]["cgroupsPath"]).strip("/") / file


@pytest.mark.parametrize(
    ("asked", "cpu_max", "memory_max", "given"),
    [
        (Resources(cpu=Cpu(quota=5000)), "max 20000", "max", Resources(cpu=Cpu(quota=5000, period=20000))),
        (Resources(cpu=Cpu(period=5000)), "700 20000", "max", Resources(cpu=Cpu(quota=700, period=5000))),
        (Resources(cpu=Cpu(period=5000)), "max 20000", "max", Resources(cpu=Cpu(period=5000))),
        (Resources(cpu=Cpu(shares=5)), "700 20000", "max", Resources(cpu=Cpu(shares=5))),
        (Resources(memory=Memory(swap=500)), "", "300", Resources(memory=Memory(limit=300, swap=500))),
        (Resources(memory=Memory(limit=-1)), "", "300", Resources(memory=Memory(limit=-1, swap=-1))),
        (Resources(memory=Memory(limit=-1, swap=5)), "", "", Resources(memory=Memory(limit=-1, swap=5))),
        (Resources(memory=Memory(limit=9)), "", "300", Resources(memory=Memory(limit=9))),
    ],
)
def test_what_is_not_asked_for_stays(asked: Resources, cpu_max: str, memory_max: str, given: Resources) -> None:
    assert completed(asked, cpu_max, memory_max) == given


@pytest.mark.skipif("memory" not in all_hierarchies().v1, reason="cgroup v2's files are checked in a guest")
def test_every_flag_is_written(oci: Runtime) -> None:
    oci.shell("sleep 1000")
    oci("run", "--detach", "a")
    flags = {
        "--memory": ("64m", "memory", "memory.limit_in_bytes", str(64 << 20)),
        "--memory-reservation": ("1.5m", "memory", "memory.soft_limit_in_bytes", str(3 << 19)),
        "--cpu-period": ("50000", "cpu", "cpu.cfs_period_us", "50000"),
        "--cpu-quota": ("20000", "cpu", "cpu.cfs_quota_us", "20000"),
        "--cpu-burst": ("10000", "cpu", "cpu.cfs_burst_us", "10000"),
        "--cpu-share": ("300", "cpu", "cpu.shares", "300"),
        "--cpuset-cpus": ("0", "cpuset", "cpuset.cpus", "0"),
        "--cpuset-mems": ("0", "cpuset", "cpuset.mems", "0"),
        "--pids-limit": ("77", "pids", "pids.max", "77"),
    }
    oci("update", *(word for flag, (value, *_) in flags.items() for word in (flag, value)), "a")
    for flag, (_, controller, file, value) in flags.items():
        assert control(oci, controller, file).read_text().strip() == value, flag
    oci("update", "--cpu-quota", "-1", "--cpu-period", "0", "--cpu-burst", "0", "--cpu-idle", "1", "a")
    assert control(oci, "cpu", "cpu.idle").read_text() == "1\n"
    period = control(oci, "cpu", "cpu.rt_period_us")
    done = oci("update", "--cpu-rt-period", "500000", "a", check=False)
    if period.exists():
        assert period.read_text() == "500000\n"
        # what its parent has none of it cannot get
        assert "cpu.rt_runtime_us" in oci("update", "--cpu-rt-runtime", "1000", "a", check=False).stderr
    else:
        assert "cpu.rt_period_us: this kernel has no such control file" in done.stderr
    for flag in ("--l3-cache-schema", "--mem-bw-schema"):
        assert "does not set Intel's RDT" in oci("update", flag, "L3:0=f", "a", check=False).stderr
    assert "is not a size" in oci("update", "--memory", "much", "a", check=False).stderr
    zeros = {"memory": {"limit": 0, "swap": 0}, "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": ""}}
    (oci.bundle / "zeros.json").write_text(json.dumps(zeros))
    oci("update", "--resources", str(oci.bundle / "zeros.json"), "a")
    assert control(oci, "memory", "memory.limit_in_bytes").read_text() == f"{64 << 20}\n"
    oci("delete", "--force", "a")


@pytest.mark.skipif("memory" not in all_hierarchies().v1, reason="cgroup v2's files are checked in a guest")
def test_memory_without_a_limit_has_swap_without_one(oci: Runtime) -> None:
    oci.shell("sleep 1000")
    oci("run", "--detach", "a")
    limit, swap = control(oci, "memory", "memory.limit_in_bytes"), control(oci, "memory", "memory.memsw.limit_in_bytes")
    unlimited = limit.read_text()
    counted = swap.exists()
    more = ["--memory-swap", "64m"] if counted else []
    oci("update", "--memory", "32m", *more, "a")
    assert limit.read_text() == f"{32 << 20}\n"
    oci("update", "--memory", "-1", "a")
    assert limit.read_text() == unlimited and (not counted or swap.read_text() == unlimited)
    oci("delete", "--force", "a")


@pytest.mark.skipif("memory" not in all_hierarchies().v1, reason="cgroup v2 kills what is above, unless it is asked")
def test_a_limit_below_what_is_used_names_both(oci: Runtime) -> None:
    oci.shell("dd if=/dev/zero of=/dev/shm/full bs=1M count=20 2>/dev/null; sleep 1000")
    oci("run", "--detach", "a")
    usage = control(oci, "memory", "memory.usage_in_bytes")
    until(lambda: int(usage.read_text()) > 20 << 20, 30)
    done = oci("update", "--memory", "1m", "a", check=False)
    assert done.returncode == 1
    words = done.stderr.split()
    assert str(1 << 20) in words and "memory.usage_in_bytes" in words
    used = words[words.index("memory.usage_in_bytes") + 2].rstrip(";")
    assert int(used) > 10 << 20
    oci("delete", "--force", "a")
