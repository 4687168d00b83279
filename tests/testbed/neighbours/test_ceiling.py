"""A ceiling over a run's cgroup, for real: the kernel kills and refuses within it, and it goes when it should."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup, Hierarchies
from runtime.errors import PrerequisiteError
from testbed.neighbours.cases import Ceiling
from testbed.neighbours.ceiling import hold_below, require_headroom

MIB = 1 << 20
HOG = "held = []\nwhile True: held.append(bytearray(b'x' * (4 << 20)))"
FORKS = """
import os, time
children = []
for number in range(40):
    try:
        if (child := os.fork()) == 0:
            time.sleep(30); os._exit(0)
        children.append(child)
    except OSError as error:
        print(number, error.errno, flush=True); break
for child in children:
    os.kill(child, 9)
"""


def run_below(cgroup: Cgroup, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a cgroup, which is made and has no limits of its own; all of it is ended and removed."""
    cgroup.make(delegate=False)

    def join() -> None:
        for directory in cgroup.directories():
            (directory / "cgroup.procs").write_text("0")

    try:
        return subprocess.run(
            [sys.executable, "-S", "-c", code], preexec_fn=join, stdout=subprocess.PIPE, text=True, timeout=60
        )
    finally:
        cgroup.kill()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        cgroup.remove()


@pytest.mark.root
def test_who_has_no_limit_is_killed_at_the_ceiling(cgroup_parent: str) -> None:
    run = Cgroup(cgroup_parent)
    with hold_below(run, Ceiling(64 * MIB, 100)):
        done = run_below(Cgroup(f"{cgroup_parent}/hog"), HOG)
    assert done.returncode == -9
    limit = run.file("memory", "memory.limit_in_bytes", "memory.max").read_text().strip()
    assert limit == "max" or int(limit) > 1 << 60, "the ceiling went with the trial"
    assert run.file("pids", "pids.max", "pids.max").read_text().strip() == "max"


@pytest.mark.root
def test_forks_are_refused_at_the_ceiling(cgroup_parent: str) -> None:
    with hold_below(Cgroup(cgroup_parent), Ceiling(256 * MIB, 20)):
        done = run_below(Cgroup(f"{cgroup_parent}/forks"), FORKS)
    number, errno = map(int, done.stdout.split())
    assert (number, errno) == (19, 11), "it is one of the twenty itself"


def test_a_host_without_headroom_is_refused() -> None:
    require_headroom(Ceiling(100 * MIB), 612 * MIB, 512 * MIB)
    with pytest.raises(PrerequisiteError, match=r"611 MiB of memory are .* take 100 MiB.* leave 512 MiB"):
        require_headroom(Ceiling(100 * MIB), 611 * MIB, 512 * MIB)


def test_a_kernel_that_does_not_inherit_limits_is_refused(tmp_path: Path) -> None:
    found = Hierarchies({"memory": tmp_path, "pids": tmp_path, "cpu": tmp_path}, None, frozenset())
    cgroup = Cgroup("run", found)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "memory.use_hierarchy").write_text("0\n")
    with pytest.raises(PrerequisiteError, match="does not hold what is below"), hold_below(cgroup, Ceiling(1)):
        pass


def test_on_version_two_the_ceiling_is_of_memory_without_swap_and_of_tasks(tmp_path: Path) -> None:
    """Files of a cgroup that is none: what is written while it holds, and after it."""
    cgroup = Cgroup("run", Hierarchies({}, tmp_path, frozenset({"memory", "pids", "cpu"})))
    files = {name: tmp_path / "run" / name for name in ("memory.max", "memory.swap.max", "pids.max")}
    (tmp_path / "run").mkdir()
    for file in files.values():
        file.write_text("max")
    with hold_below(cgroup, Ceiling(100 * MIB, 50)):
        assert [file.read_text() for file in files.values()] == [str(100 * MIB), "0", "50"]
    assert [file.read_text() for file in files.values()] == ["max"] * 3
