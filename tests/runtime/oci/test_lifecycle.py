"""The life of a container through the command line."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import pytest

from runtime import __version__
from runtime.cgroups.placing import all_hierarchies
from tests.runtime.command_line import Runtime, said_on
from tests.waiting import until

pytestmark = pytest.mark.root


def test_run_passes_output_and_exit_status(oci: Runtime) -> None:
    oci.shell("echo out; echo err >&2; exit 7")
    done = oci("run", "a", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_created_running_stopped_deleted(oci: Runtime, tmp_path: Path) -> None:
    oci.shell("sleep 100")
    pid_file = tmp_path / "pid"
    oci("create", "--pid-file", str(pid_file), "a")
    state = oci.state("a")
    assert (state["status"], state["pid"]) == ("created", int(pid_file.read_text()))
    assert b"sleep" not in Path(f"/proc/{state['pid']}/cmdline").read_bytes()
    assert oci("delete", "a", check=False).returncode == 1
    oci("start", "a")
    assert oci.state("a")["status"] == "running"
    assert "not created" in oci("start", "a", check=False).stderr
    oci("kill", "a", "KILL")
    until(lambda: oci.state("a")["status"] == "stopped", 10)
    assert "not running" in oci("kill", "a", check=False).stderr
    oci("delete", "a")
    assert "does not exist" in oci("state", "a", check=False).stderr
    assert oci("delete", "--force", "a").returncode == 0


def test_hooks_run_in_order_and_where_they_belong(oci: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = tmp_path / "hook"
    script.write_text(f"#!/bin/sh\ncat > {tmp_path}/state-$1; echo $1 $(readlink /proc/self/ns/mnt) >> {log}\n")
    script.chmod(0o755)
    inside = oci.bundle / "rootfs" / "hook"
    inside.write_text("#!/bin/sh\necho startContainer > /inside\n")
    inside.chmod(0o755)
    config = oci.config()
    outside = {
        kind: [{"path": str(script), "args": ["hook", kind]}]
        for kind in ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    }
    config["hooks"] = {**outside, "startContainer": [{"path": "/hook"}]}
    oci.configure(config)
    oci.shell("cat /inside")
    assert oci("run", "a").stdout == "startContainer\n"
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [line[0] for line in lines] == ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    own = os.readlink("/proc/self/ns/mnt")
    assert [line[1] == own for line in lines] == [True, True, False, True, True]
    assert json.loads((tmp_path / "state-createRuntime").read_text())["status"] == "creating"


def test_what_hooks_are_told_and_where_they_are(oci: Runtime, tmp_path: Path) -> None:
    """Directory, state and inherited environment of each kind: the specification's where it speaks (runtime.md,
    "State"), or else as runc 1.1.5 and crun 1.8.1 do."""
    script = f"#!/bin/sh\n{{ pwd; echo $OURS $THEIRS; cat; }} > {tmp_path}/$1\n"
    (tmp_path / "hook").write_text(script)
    (tmp_path / "hook").chmod(0o755)
    (oci.bundle / "rootfs" / "hook").write_text(script.replace(str(tmp_path), ""))
    (oci.bundle / "rootfs" / "hook").chmod(0o755)
    config = oci.config()
    outside = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    hooks = {kind: [{"path": f"{tmp_path}/hook", "args": ["hook", kind]}] for kind in outside}
    config["hooks"] = {**hooks, "startContainer": [{"path": "/hook", "args": ["hook", "startContainer"]}]}
    config["annotations"] = {"a.b": "c"}
    oci.configure(config)
    oci.shell("sleep 100", env=["PATH=/bin", "THEIRS=theirs"])
    environment = {**os.environ, "OURS": "ours"}
    oci("create", "a", env=environment)
    pid = oci.state("a")["pid"]
    oci("start", "a", env=environment)
    oci("delete", "--force", "a", env=environment)
    root = oci.bundle / "rootfs"
    expected = {
        "prestart": (oci.bundle, "ours", "creating", pid),
        "createRuntime": (oci.bundle, "ours", "creating", pid),
        "createContainer": (root, "ours", "creating", 1),
        "startContainer": ("/", "theirs", "created", 1),
        "poststart": (oci.bundle, "ours", "running", pid),
        "poststop": (oci.bundle, "ours", "stopped", 0),
    }
    for kind, (directory, inherited, status, number) in expected.items():
        where = root if kind == "startContainer" else tmp_path
        said = (where / kind).read_text().split("\n", 2)
        assert said[:2] == [str(directory), inherited], kind
        state = {"id": "a", "status": status, "pid": number, "bundle": str(oci.bundle), "annotations": {"a.b": "c"}}
        assert json.loads(said[2]) == {"ociVersion": oci.state_version(), **state}, kind


def test_a_hook_inside_is_the_user_namespaces_root(oci: Runtime) -> None:
    config = oci.config()
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    config["linux"].update(uidMappings=maps, gidMappings=maps)
    config["linux"]["namespaces"].append({"type": "user"})
    script = "id -u > /dev/hook; id -g >> /dev/hook"
    config["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    oci.configure(config)
    oci.shell("cat /dev/hook; stat -c %u /dev/hook")
    assert oci("run", "a").stdout == "0\n0\n0\n"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"])
def test_a_hook_that_fails_by_its_name_fails_the_container(oci: Runtime, kind: str) -> None:
    """busybox is what its first argument says: with another it would print its help and succeed."""
    config = oci.config()
    config["hooks"] = {kind: [{"path": "/bin/busybox", "args": ["false"]}]}
    oci.configure(config)
    oci.shell("sleep 100")
    done = oci("run", "a", check=False)
    assert done.returncode != 0 and f"{kind} hook 0 (/bin/busybox): exit status 1" in done.stderr
    assert oci("list", "--quiet").stdout == ""


def test_exec_joins_the_container(oci: Runtime) -> None:
    oci.shell("sleep 100")
    oci("run", "--detach", "a")
    script = "id -u; echo $A; cat /proc/1/cmdline; exit 3"
    done = oci("exec", "--user", "1000:1000", "--env", "A=b", "a", "sh", "-c", script, check=False)
    assert done.returncode == 3 and done.stdout.startswith("1000\nb\nsleep")
    assert "not found in $PATH" in oci("exec", "a", "nonsense", check=False).stderr
    assert oci.state("a")["pid"] in json.loads(oci("ps", "--format", "json", "a").stdout)
    oci("pause", "a")
    assert oci.state("a")["status"] == "paused"
    oci("resume", "a")
    oci("update", "--pids-limit", "33", "a")
    cgroup = oci.config()["linux"]["cgroupsPath"].strip("/")
    pids = all_hierarchies().mount_of("pids")
    assert pids and (pids / cgroup / "pids.max").read_text() == "33\n"
    assert json.loads(oci("events", "--stats", "a").stdout)["data"]["pids"]["current"] == 1
    oci("delete", "--force", "a")


def test_run_relays_a_terminal(oci: Runtime) -> None:
    oci.shell("test -t 0 && echo yes; exit 4", terminal=True)
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(oci.bundle)
        os.execv(oci.command("run", "a")[0], oci.command("run", "a"))
    said = said_on(master)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4 and b"yes" in said


def test_run_passes_signals_on(oci: Runtime) -> None:
    oci.shell("trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    with subprocess.Popen(oci.command("run", "a"), cwd=oci.bundle, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "got\n"
    assert process.returncode == 5


def test_errors_go_to_the_log_as_json(oci: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert oci("--log", str(log), "--log-format", "json", "start", "nobody", check=False).returncode == 1
    assert json.loads(log.read_text())["msg"] == "container nobody does not exist"


def test_spec_and_features(oci: Runtime, tmp_path: Path) -> None:
    oci("spec", "--bundle", str(tmp_path))
    assert json.loads((tmp_path / "config.json").read_text())["ociVersion"] == "1.3.0"
    assert "there already" in oci("spec", "--bundle", str(tmp_path), check=False).stderr
    features = json.loads(oci("features").stdout)
    assert features["ociVersionMax"] == "1.3.0"
    assert oci("--version").stdout == f"testbed-runtime {__version__}\nspec: 1.3.0\n"
    assert {
        name for name, kind in features["linux"].items() if isinstance(kind, dict) and not kind.get("enabled", True)
    } == {
        "intelRdt",
        "selinux",
    }
    assert "MPOL_BIND" in features["linux"]["memoryPolicy"]["modes"] and features["linux"]["netDevices"]["enabled"]


def test_events_count_what_it_uses(oci: Runtime) -> None:
    oci.shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1000")
    config = oci.config()
    config["linux"]["resources"] = {"memory": {"limit": 1 << 26}, "pids": {"limit": 9}}
    oci.configure(config)
    oci("run", "--detach", "a")
    time.sleep(0.5)
    data = json.loads(oci("events", "--stats", "a").stdout)["data"]
    assert data["cpu"]["usage"]["total"] > 1_000_000 and "throttledTime" in data["cpu"]["throttling"]
    assert 0 < data["memory"]["usage"]["usage"] < data["memory"]["usage"]["limit"] == 1 << 26
    assert data["memory"]["usage"]["failcnt"] == 0 and data["memory"]["raw"]
    assert data["pids"] == {"current": 2, "limit": 9} or data["pids"] == {"current": 1, "limit": 9}
    assert "ioServiceBytesRecursive" in data["blkio"]
    oci("delete", "--force", "a")


def test_limits_change_in_an_order_that_the_kernel_takes(oci: Runtime) -> None:
    """Memory may at no moment be above memory and swap: up and down again."""
    found = all_hierarchies()
    mount = found.mount_of("memory")
    assert mount is not None
    swap = "memory.memsw.limit_in_bytes" if "memory" in found.v1 else "memory.swap.max"
    oci.shell("sleep 1000")
    oci("run", "--detach", "a")
    cgroup = mount / oci.config()["linux"]["cgroupsPath"].strip("/")
    if not (cgroup / swap).exists():
        oci("delete", "--force", "a")
        pytest.skip(f"this kernel does not count swap: there is no {swap}")
    for megabytes in (64, 256, 32):
        oci("update", "--memory", str(megabytes << 20), "--memory-swap", str(megabytes << 20), "a")
        (limit,) = [
            (cgroup / name).read_text() for name in ("memory.limit_in_bytes", "memory.max") if (cgroup / name).exists()
        ]
        assert int(limit) == megabytes << 20
    oci("delete", "--force", "a")


def test_debug_says_what_is_done(oci: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "log"
    oci("--debug", "--log", str(log), "--log-format", "json", "state", "nobody", check=False)
    first, second, third = (json.loads(line) for line in log.read_text().splitlines())
    assert (first["level"], second["level"], third["level"]) == ("debug", "error", "debug")
    assert "state nobody" in first["msg"] and "exit status 1" in third["msg"]
