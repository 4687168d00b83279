"""The command line killed at any step: delete --force brings back a clean host, and the state is never torn."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup
from runtime.cgroups.placing import all_hierarchies
from tests.runtime.oci import Runtime

pytestmark = pytest.mark.root


def clean(runtime: Runtime, marker: str) -> None:
    """After delete --force there is no state, no cgroup, no process and no mount."""
    runtime("delete", "--force", "a")
    assert json.loads(runtime("list", "--format", "json").stdout) == []
    assert not (runtime.root / "a").exists()
    cgroup = runtime.config()["linux"]["cgroupsPath"].strip("/")
    assert not Cgroup(cgroup, all_hierarchies()).exists()
    deadline = time.monotonic() + 5
    while running(marker):
        assert time.monotonic() < deadline, "a process is left"
        time.sleep(0.01)
    assert str(runtime.bundle) not in Path("/proc/self/mountinfo").read_text()


def running(marker: str) -> bool:
    """Whether a process with this argument, or a launcher for this test's plan, is there."""
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                if marker.encode() in (directory / "cmdline").read_bytes():
                    return True
            except OSError:
                continue
    return False


OPERATIONS = {"create": ["create", "a"], "start": ["start", "a"], "delete": ["delete", "--force", "a"]}
# What an interpreter does to itself while it starts is no step of ours; what others can see is.
_STEPS = (
    "mkdir rename unlink unlinkat rmdir write bind listen connect sendto sendmsg recvmsg flock vfork clone clone3 "
    "wait4 waitid kill pidfd_open pidfd_send_signal memfd_create socket socketpair fsync"
).split()
_LOOKS = ("openat2", "statx", "fchdir", "open_tree")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_at_every_step(oci: Runtime, operation: str) -> None:
    """At each system call of the command that others can see."""
    marker = f"testbed-{os.getpid()}-{operation}"
    oci.shell(f"sleep 1000; : {marker}")
    oci("create", "a")
    if operation == "create":
        clean(oci, marker)  # the parent of its cgroup is there from now on
    points = [point for point in oci.calls(*OPERATIONS[operation]) if point[0] in _STEPS]
    clean(oci, marker)
    killed = 0
    for call, number in points:
        if operation != "create":
            oci("create", "a")
        killed += oci.killed_at(call, number, *OPERATIONS[operation])
        for record in oci.root.glob("*/record.json"):
            json.loads(record.read_text())
        clean(oci, marker)
    assert killed > len(points) * 0.9 and len(points) > 4


def test_the_launcher_killed_at_every_step(oci: Runtime) -> None:
    """At each system call that changes something and that the launcher and the container's process alone make: create
    fails, and nothing is left even before delete."""
    marker = f"testbed-{os.getpid()}-launcher"
    oci.shell(f"sleep 1000; : {marker}")
    points = [point for point in oci.calls("create", "a", of_children=True) if point[0] not in _LOOKS]
    clean(oci, marker)
    killed = 0
    for call, number in points:
        failed = oci.killed_at(call, number, "create", "a")
        killed += failed
        assert failed != (oci.root / "a").exists(), (call, number)
        clean(oci, marker)
    assert killed > len(points) * 0.8 and len(points) > 30
