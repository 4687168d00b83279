"""The command line killed at any step: delete --force brings back a clean host, and the state is never torn."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup
from runtime.cgroups.placing import all_hierarchies
from tests.runtime.command_line import SUCCESS, Runtime
from tests.waiting import until

pytestmark = pytest.mark.root


def clean(runtime: Runtime, marker: str) -> None:
    """After delete --force there is no state, no cgroup, no process and no mount."""
    runtime("delete", "--force", "a")
    assert json.loads(runtime("list", "--format", "json").stdout) == []
    assert not (runtime.root / "a").exists()
    cgroup = runtime.config()["linux"]["cgroupsPath"].strip("/")
    assert not Cgroup(cgroup, all_hierarchies()).exists()
    until(lambda: not running(marker), 5, lambda: "a process is left")
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


@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_at_every_step(oci: Runtime, operation: str) -> None:
    """At each system call that changes something beyond the process that makes it, the command's own process is killed
    before the call is made, or the launcher is, or the container's process, whichever makes it.

    A kill at a call that only looks is none of its own: what is left is what a kill at the next change leaves. Not
    walked are the few calls (a fifth at most: the client makes the cgroup's directories, and the container's process
    some in its root) of which another process makes as many before, which is killed in its place; and while the command
    waits for what it started, it is killed once, at the beginning.
    """
    marker = f"testbed-{os.getpid()}-{operation}"
    oci.shell(f"sleep 1000; : {marker}")
    oci("create", "a")
    if operation == "create":
        clean(oci, marker)  # the parent of its cgroup is there from now on
    steps = oci.changes(*OPERATIONS[operation])
    clean(oci, marker)
    points = [point for point in steps if point.hit]
    assert len(points) >= len(steps) * 0.8 and len(points) > 4
    killed = 0
    for point in points:
        if operation != "create":
            oci("create", "a")
        end = oci.ended_at(point.call, point.number, *OPERATIONS[operation])
        killed += end != SUCCESS
        for record in oci.root.glob("*/record.json"):
            json.loads(record.read_text())
        if "exited" in end and not point.own:  # what failed is undone by the command itself, even before delete
            assert (end == SUCCESS) == (oci.root / "a").exists(), point
        clean(oci, marker)
    assert killed >= len(points) * 0.9
