"""One cgroup for real: its meters move, and it goes away."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup, hierarchies
from runtime.plan.cgroup import make_steps
from runtime.plan.steps import Mkdir

pytestmark = pytest.mark.root


def make(name: str) -> Cgroup:
    cgroup = Cgroup(name)
    cgroup.make_parent()
    for step in make_steps(hierarchies(), name):
        assert isinstance(step, Mkdir)
        Path(step.path).mkdir()
    return cgroup


def test_meters_see_a_process_that_joined(cgroup_parent: str) -> None:
    cgroup = make(f"{cgroup_parent}/meter")
    joins = "; ".join(f"echo $$ > {directory}/cgroup.procs" for directory in cgroup.directories())
    script = f"{joins}; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; exec sleep 60"
    process = subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE)
    try:
        assert process.stdout and process.stdout.readline() == b"done\n"
        assert cgroup.pids() == (process.pid,)
        assert cgroup.cpu_usage_ns() > 10_000_000
        assert cgroup.memory_bytes() > 0
    finally:
        cgroup.kill()
        process.wait()
        cgroup.remove()
    assert not any(directory.exists() for directory in cgroup.directories())


def test_remove_of_what_is_not_there_is_harmless(cgroup_parent: str) -> None:
    cgroup = Cgroup(f"{cgroup_parent}/never")
    started = time.monotonic()
    cgroup.kill()
    cgroup.remove()
    assert time.monotonic() - started < 1
