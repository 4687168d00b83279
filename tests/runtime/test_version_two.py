"""The command line on a host that has cgroup v2 only: a mount namespace in which nothing else is mounted."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.cgroups import hierarchies
from tests.runtime.command_line import Runtime, assert_no_cgroup, unique

pytestmark = pytest.mark.root

A = unique("a")
MOUNT = "umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && echo ready && exec sleep 1000"


@pytest.fixture
def second(oci: Runtime) -> Iterator[Runtime]:
    """The runtime in that mount namespace. The controllers stay with this host's v1 hierarchies."""
    found = hierarchies()
    if found.mode == "v2":
        pytest.skip("this host has cgroup v2 only: all other tests are this one")
    if found.unified is None:
        pytest.skip("this kernel mounts no cgroup v2")
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNT], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
        config = oci.config()
        del config["linux"]["cgroupsPath"]
        oci.configure(config)
        yield Runtime(oci.root, oci.bundle, ("nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", f"--wd={oci.bundle}"))
        assert_no_cgroup(A, replace(found, v1={}))
    finally:
        holder.kill()
        holder.communicate()


def cgroup_of(pid: int) -> Path:
    (line,) = [line for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::")]
    unified = hierarchies().unified
    assert unified is not None
    return unified / line.removeprefix("0::/")


def test_a_life(second: Runtime) -> None:
    second.shell("sleep 1000")
    second("create", A)
    second("start", A)
    state = second.state(A)
    assert state["status"] == "running"
    assert cgroup_of(state["pid"]).parts[-2:] == ("testbed-runtime", A)
    second("pause", A)
    assert second.state(A)["status"] == "paused"
    assert (cgroup_of(state["pid"]) / "cgroup.freeze").read_text() == "1\n"
    second("resume", A)
    assert second("exec", A, "cat", "/proc/self/cgroup").stdout.splitlines()[-1] == "0::/"
    second("kill", "--all", A, "KILL")
    second("delete", "--force", A)


def test_device_rules_hold(second: Runtime) -> None:
    config = second.config()
    for kind in ("bounding", "effective", "permitted"):
        config["process"]["capabilities"][kind].append("CAP_MKNOD")
    config["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    second.configure(config)
    (second.bundle / "rootfs" / "bin" / "mknod").symlink_to("busybox")
    second.shell("cat /dev/null && mknod /kmsg c 1 11 && cat /kmsg")
    done = second("run", A, check=False)
    assert done.returncode == 1 and "Operation not permitted" in done.stderr


def test_it_sees_its_own_cgroup_as_the_root(second: Runtime) -> None:
    second.shell(
        "grep ^0 /proc/self/cgroup; ls /sys/fs/cgroup | grep -c cgroup.procs; grep -c cgroup2 /proc/self/mountinfo"
    )
    assert [second("run", A).stdout.split() for _ in range(2)] == [["0::/", "1", "1"]] * 2  # Python's, the launcher's


def test_a_limit_without_its_controller_is_named(second: Runtime) -> None:
    config = second.config()
    config["linux"]["resources"] = {"memory": {"limit": 1 << 25}}  # which is with cgroup v1 here
    second.configure(config)
    assert "memory.max = 33554432: this host has no memory controller" in second("create", A, check=False).stderr
