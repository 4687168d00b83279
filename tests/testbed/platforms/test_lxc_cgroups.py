"""Whose cgroup a process is in, as long as it is there."""

from __future__ import annotations

import os
import subprocess

import pytest

from runtime.cgroups import Cgroup
from testbed.platforms.lxc_cgroups import find_cgroup

pytestmark = pytest.mark.root


def test_one_that_has_ended_is_in_none(cgroup_parent: str) -> None:
    """A process that waits to be reaped is in the root, where the whole host is (cgroup v1)."""
    cgroup = Cgroup(f"{cgroup_parent}/a")
    cgroup.make()
    with subprocess.Popen(["sleep", "100"]) as process:
        for directory in cgroup.directories():
            (directory / "cgroup.procs").write_text(str(process.pid))
        assert find_cgroup(process.pid) == cgroup.name
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        if cgroup.hierarchies.v1:
            with pytest.raises(ProcessLookupError):
                find_cgroup(process.pid)
    with pytest.raises(FileNotFoundError):
        find_cgroup(process.pid)
    cgroup.remove()
