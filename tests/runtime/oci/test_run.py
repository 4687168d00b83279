"""The same bundle run again and again: the same each time, and as it is by then; by a planner that is there and without
one."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.cgroups.placing import all_hierarchies
from tests.runtime.command_line import PLANNERS, Runtime, assert_no_cgroup, environment, unique
from tests.waiting import until

pytestmark = pytest.mark.root

A = unique("a")


@pytest.fixture
def plain(oci: Runtime) -> Iterator[Runtime]:
    """A bundle whose cgroup is the runtime's to name."""
    config = oci.config()
    del config["linux"]["cgroupsPath"]
    oci.configure(config)
    yield oci
    assert not list(oci.root.iterdir()), "a container's state is left"
    assert_no_cgroup(A, all_hierarchies())


def wait_until_running(runtime: Runtime, name: str) -> None:
    until(lambda: '"running"' in runtime("state", name, check=False).stdout, 10)
    pid = runtime.state(name)["pid"]
    until(lambda: b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes(), 10)


@pytest.mark.parametrize(
    "script", ["echo out; echo err >&2; exit 7", "kill -KILL $$", "cat", "id; cat /proc/self/cgroup"]
)
def test_each_time_gives_the_same(plain: Runtime, script: str) -> None:
    plain.shell(script)
    outcomes = [plain("run", A, check=False, env=environment(planner)) for planner in ("off", *PLANNERS)]
    assert len({(done.returncode, done.stdout, done.stderr) for done in outcomes}) == 1


def test_each_time_makes_the_same_container(plain: Runtime) -> None:
    """Seen from inside: mounts, limits, capabilities, descriptors; and the same record outside, but for the process."""
    descriptors = "ls -l /proc/self/fd | sed 's/ [A-Z].*:.. / /; s/[[#][0-9]*/#/'"  # without times and inodes' numbers
    plain.shell(
        f"cut -d' ' -f4- /proc/self/mountinfo; ulimit -a; grep -v -e ctxt -e SigQ /proc/self/status; {descriptors}"
    )
    outputs = [plain("run", A, env=environment(planner)).stdout.split("\n") for planner in PLANNERS]
    differing = [(x, y) for x, y in zip(*outputs, strict=True) if x != y]
    assert not [pair for pair in differing if not pair[0].startswith("Vm") and not pair[0].startswith("Rss")], differing


def test_it_is_a_container_like_any_other_meanwhile(plain: Runtime) -> None:
    plain.shell("trap 'exit 143' TERM; sleep 1000 & wait")
    process = subprocess.Popen(plain.command("run", A), cwd=plain.bundle)
    wait_until_running(plain, A)
    (row,) = json.loads(plain("list", "--format", "json").stdout)
    assert (row["id"], row["status"], row["bundle"]) == (A, "running", str(plain.bundle))
    assert row["created"].endswith("Z") and row["pid"] in json.loads(plain("ps", "--format", "json", A).stdout)
    assert plain("exec", A, "cat", "/proc/1/comm").stdout == "sh\n"
    assert "already exists" in plain("run", A, check=False).stderr
    plain("pause", A)
    plain("resume", A)
    plain("kill", A, "TERM")
    assert process.wait(30) == 143


def test_a_change_is_noticed(plain: Runtime) -> None:
    plain.shell("echo one")
    assert [plain("run", A).stdout for _ in range(2)] == ["one\n"] * 2
    plain.shell("echo two")
    assert [plain("run", A).stdout for _ in range(2)] == ["two\n"] * 2
    other = plain.bundle / "other"
    (plain.bundle / "rootfs").rename(other)
    (plain.bundle / "rootfs").symlink_to(other)  # the path is the same, and where it leads is not
    config = plain.config()
    assert config["root"]["path"] == "rootfs"
    assert plain("run", A).stdout == "two\n"


def test_a_failure_is_explained_and_leaves_nothing(plain: Runtime) -> None:
    plain.shell("true")
    plain("run", A)
    (plain.bundle / "rootfs" / "bin" / "sh").unlink()
    done = plain("run", A, check=False)
    assert done.returncode == 1 and "executable file `sh` not found in $PATH" in done.stderr


def test_signals_are_passed_on(plain: Runtime) -> None:
    plain.shell("trap 'echo got it; exit 9' USR1; sleep 1000 & wait")
    for planner in PLANNERS:
        command, env = plain.command("run", A), environment(planner)
        process = subprocess.Popen(command, cwd=plain.bundle, stdout=subprocess.PIPE, text=True, env=env)
        wait_until_running(plain, A)
        time.sleep(0.1)
        process.send_signal(signal.SIGUSR1)
        assert process.communicate(timeout=30)[0] == "got it\n" and process.returncode == 9


def test_killed_at_every_system_call(plain: Runtime) -> None:
    """delete --force brings back a clean host wherever the client was when it was killed."""
    plain.shell("true")
    plain("run", A)
    killed = 0
    points = plain.calls("run", A)
    for call, number in points[points.index(("mkdirat", 1)) :]:
        killed += plain.killed_at(call, number, "run", A)
        plain("delete", "--force", A)
        assert not (plain.root / A).exists(), (call, number)
        assert_no_cgroup(A, all_hierarchies())
    assert killed > 60
