"""containerd with this runtime in runc's place, where containerd is installed: it is not among what ./invoke installs,
because its package starts a daemon on the host. A private one is started here."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup
from runtime.cgroups.placing import all_hierarchies
from runtime.launcher.build import COMMAND
from tests.waiting import until

pytestmark = pytest.mark.root

CONFIG = """
version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{0}/socket"
[ttrpc]
  address = "{0}/ttrpc"
"""
Ctr = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ctr(busybox_layer: Path, run_name: str) -> Iterator[Ctr]:
    """ctr, talking to a containerd of its own."""
    if shutil.which("containerd") is None:
        pytest.skip("containerd is not installed")
    with tempfile.TemporaryDirectory(prefix="containerd-", dir="/tmp") as name:
        directory = Path(name)
        shutil.copytree(busybox_layer, directory / "rootfs", symlinks=True)
        for empty in ("proc", "sys", "dev", "etc"):
            (directory / "rootfs" / empty).mkdir(exist_ok=True)
        (directory / "config").write_text(CONFIG.format(name))
        with (directory / "log").open("w") as log:
            daemon = subprocess.Popen(["containerd", "--config", str(directory / "config")], stdout=log, stderr=log)

        def call(*arguments: str) -> subprocess.CompletedProcess[str]:
            if arguments[0] == "run":
                own = (
                    "--runc-binary",
                    str(COMMAND),
                    "--runc-root",
                    f"{name}/runc",
                    "--rootfs",
                    "--cgroup",
                    f"/{run_name}/c",
                )
                arguments = ("run", *own, *(word.replace("ROOTFS", f"{name}/rootfs") for word in arguments[1:]))
            command = ["ctr", "--address", f"{name}/socket", *arguments]
            return subprocess.run(command, capture_output=True, text=True, timeout=60)

        try:
            until(lambda: call("version").returncode == 0, 30, (directory / "log").read_text)
            yield call
        finally:
            for task in call("task", "ls", "--quiet").stdout.split():  # of a test that failed
                call("task", "rm", "--force", task)
            daemon.terminate()
            daemon.wait(30)
    assert not Cgroup(f"{run_name}/c", all_hierarchies()).exists()
    Cgroup(run_name, all_hierarchies()).remove()


def hidden_controllers() -> set[str]:
    """The cgroup v1 controllers that processes are in and whose hierarchy is mounted nowhere in sight."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    named = {name for line in lines for name in line.split(":")[1].split(",") if name and "=" not in name}
    return named - set(all_hierarchies().v1) - {"perf_event", "net_cls", "net_prio"}


def test_output_and_exit_status(ctr: Ctr) -> None:
    done = ctr("run", "--rm", "ROOTFS", "one", "sh", "-c", "echo out; exit 7")
    assert (done.returncode, done.stdout) == (7, "out\n"), done.stderr


def test_a_program_has_a_home(ctr: Ctr) -> None:
    """ctr gives it none; without a list of users it is at home in /."""
    done = ctr("run", "--rm", "ROOTFS", "home", "sh", "-c", "echo $HOME")
    assert (done.returncode, done.stdout) == (0, "/\n"), done.stderr


def test_a_life(ctr: Ctr) -> None:
    assert ctr("run", "--detach", "--memory-limit", str(1 << 26), "ROOTFS", "two", "sleep", "1000").returncode == 0
    inside = ctr("task", "exec", "--exec-id", "x", "two", "sh", "-c", "echo in; exit 3")
    assert (inside.returncode, inside.stdout) == (3, "in\n")
    told = ctr("task", "metrics", "--format", "json", "two")
    if hidden := hidden_controllers():  # containerd 1.6 gives up then, whichever the runtime
        assert told.stdout == "", f"containerd can do without {hidden} now"
    else:
        metrics = json.loads(told.stdout)
        memory = metrics["memory"]
        assert (memory.get("usage_limit") or memory["usage"]["limit"]) == 1 << 26  # cgroup v2's name for it, and v1's
        assert metrics["pids"]["current"] == 1 and metrics["cpu"]
    assert ctr("task", "pause", "two").returncode == 0 and "PAUSED" in ctr("task", "ls").stdout
    assert ctr("task", "resume", "two").returncode == 0 and "RUNNING" in ctr("task", "ls").stdout
    assert len(ctr("task", "ps", "two").stdout.splitlines()) == 2
    assert ctr("task", "kill", "--signal", "KILL", "two").returncode == 0
    until(lambda: "STOPPED" in ctr("task", "ls").stdout, 10)
    assert "exit code 137" in ctr("task", "rm", "two").stderr
    assert ctr("container", "rm", "two").returncode == 0


def test_an_error_reaches_the_user(ctr: Ctr) -> None:
    done = ctr("run", "--rm", "ROOTFS", "three", "no-such-program")
    assert done.returncode != 0 and "not found in $PATH" in done.stderr
