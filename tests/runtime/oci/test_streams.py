"""Standard streams that are closed where the command line is called: the workload has the null device in their place,
and nothing of the runtime's."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import pytest

from runtime.launcher import STATIC_BINARY
from runtime.plan import steps as s
from runtime.plan.encode import encode
from tests.runtime.command_line import PLANNERS, Runtime, environment, unique
from tests.waiting import until

SUBSETS = [subset for size in (1, 2, 3) for subset in combinations((0, 1, 2), size)]
OPEN = Path("/dev/zero")  # what the streams are that are not closed


def closing(
    subset: tuple[int, ...], command: list[str], cwd: Path, planner: str = "resident"
) -> subprocess.CompletedProcess[bytes]:
    """Run the command with these streams closed and all others OPEN."""
    words = " ".join(f"{fd}<&-" if fd in subset else f"{fd}<>{OPEN}" for fd in range(3))
    script = ["sh", "-c", f'exec "$@" {words}', "sh"]
    return subprocess.run([*script, *command], cwd=cwd, timeout=30, env=environment(planner))


def streams(pid: int) -> list[str]:
    return [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)]


def expected(subset: tuple[int, ...]) -> list[str]:
    return ["/dev/null" if fd in subset else str(OPEN) for fd in range(3)]


@pytest.mark.root
@pytest.mark.parametrize("subset", SUBSETS)
def test_of_a_created_container(oci: Runtime, subset: tuple[int, ...]) -> None:
    oci.shell("sleep 1000")
    for planner in PLANNERS:
        assert closing(subset, oci.command("create", "a"), oci.bundle, planner).returncode == 0
        pid = oci.state("a")["pid"]
        assert streams(pid) == expected(subset)
        assert closing(subset, oci.command("start", "a"), oci.bundle).returncode == 0
        assert streams(pid) == expected(subset)
        assert closing(subset, oci.command("delete", "--force", "a"), oci.bundle).returncode == 0


@pytest.mark.root
@pytest.mark.parametrize("subset", SUBSETS)
def test_of_a_run_and_of_what_is_executed_in_it(oci: Runtime, subset: tuple[int, ...], tmp_path: Path) -> None:
    oci.shell("sleep 1000")
    assert closing(subset, oci.command("run", "--detach", "a"), oci.bundle).returncode == 0
    assert streams(oci.state("a")["pid"]) == expected(subset)
    further = ("exec", "--detach", "--pid-file", str(tmp_path / "pid"), "a", "sleep", "1000")
    for planner in PLANNERS:
        assert closing(subset, oci.command(*further), oci.bundle, planner).returncode == 0
        assert streams(int((tmp_path / "pid").read_text())) == expected(subset)
    assert oci("kill", "a", "KILL").returncode == 0
    until(lambda: oci.state("a")["status"] == "stopped")
    oci("delete", "a")


@pytest.mark.root
@pytest.mark.parametrize("subset", SUBSETS)
def test_of_a_run_that_is_waited_for(oci: Runtime, subset: tuple[int, ...]) -> None:
    config = oci.config()
    del config["linux"]["cgroupsPath"]
    oci.configure(config)
    oci.shell("while ! test -e /end; do sleep 0.01; done")
    end, name = oci.bundle / "rootfs" / "end", unique("a")
    for planner in PLANNERS:
        with ThreadPoolExecutor() as pool:
            ending = pool.submit(closing, subset, oci.command("run", name), oci.bundle, planner)
            until(lambda: '"running"' in oci("state", name, check=False).stdout)
            found = streams(oci.state(name)["pid"])
            end.touch()
            assert (found, ending.result().returncode) == (expected(subset), 0)
        end.unlink()


@pytest.mark.parametrize("subset", SUBSETS)
def test_of_a_plan(tmp_path: Path, subset: tuple[int, ...]) -> None:
    said = tmp_path / "said"
    script = f"readlink /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2 | cat > {said}; true"
    (tmp_path / "p").write_bytes(encode(s.Plan((s.Exec(("/bin/sh", "-c", script), ("PATH=/usr/bin:/bin",)),))))
    assert closing(subset, [str(STATIC_BINARY), str(tmp_path / "p")], tmp_path).returncode == 0
    assert said.read_text().split() == expected(subset)
