"""The command line killed at any moment: delete --force brings back a clean host, and the state is never torn."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup
from runtime.lifecycle import all_hierarchies
from tests.runtime.oci import Runtime
from tests.runtime.test_lifecycle import oci

__all__ = ["oci"]
pytestmark = pytest.mark.root

MOMENTS = 24


def kill_after(runtime: Runtime, seconds: float, *arguments: str) -> bool:
    """Start a command and kill it after a time; whether it was still running."""
    with open(os.devnull, "r+b") as null:
        process = subprocess.Popen(
            runtime.command(*arguments), cwd=runtime.bundle, stdin=null, stdout=null, stderr=null
        )
        try:
            process.wait(seconds)
            return False
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return True


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


@pytest.mark.parametrize("operation", ["create", "start", "delete"])
def test_killed_at_every_moment(oci: Runtime, operation: str) -> None:
    """The moments divide the time that the command takes; every one is followed by the clean-up."""
    marker = f"testbed-{os.getpid()}-{operation}"
    oci.shell(f"sleep 1000; : {marker}")
    arguments = {"create": ["create", "a"], "start": ["start", "a"], "delete": ["delete", "--force", "a"]}[operation]
    if operation != "create":
        oci("create", "a")
    began = time.monotonic()
    oci(*arguments)
    whole = time.monotonic() - began
    clean(oci, marker)
    killed = 0
    for moment in range(MOMENTS):
        if operation != "create":
            oci("create", "a")
        killed += kill_after(oci, whole * (moment + 1) / MOMENTS, *arguments)
        for record in oci.root.glob("*/record.json"):
            json.loads(record.read_text())
        clean(oci, marker)
    assert killed > MOMENTS // 4
