"""The life of a container through the command line."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.cgroups import Cgroup
from runtime.cgroups.placing import all_hierarchies
from tests.runtime.oci import Runtime, make_runtime

pytestmark = pytest.mark.root


@pytest.fixture
def oci(busybox_layer: Path, run_name: str) -> Iterator[Runtime]:
    with tempfile.TemporaryDirectory(prefix="oci-", dir="/tmp") as name:
        Path(name).chmod(0o711)  # the root of a user namespace must be able to reach it
        yield from used(make_runtime(Path(name), busybox_layer, f"{run_name}/oci"), run_name)


def used(runtime: Runtime, run_name: str) -> Iterator[Runtime]:
    """The runtime for a test, after which nothing of it may be left."""
    yield runtime
    left = json.loads(runtime("list", "--format", "json").stdout)
    for row in left:
        runtime("delete", "--force", row["id"])
    assert not left, "a test deletes its containers"
    assert not Cgroup(f"{run_name}/oci", all_hierarchies()).exists()
    Cgroup(run_name, all_hierarchies()).remove()


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
    deadline = time.monotonic() + 10
    while oci.state("a")["status"] != "stopped":
        assert time.monotonic() < deadline
    assert "not running" in oci("kill", "a", check=False).stderr
    oci("delete", "a")
    assert "does not exist" in oci("state", "a", check=False).stderr
    assert oci("delete", "--force", "a").returncode == 0


def test_an_id_is_taken_once(oci: Runtime) -> None:
    oci.shell("sleep 100")
    oci("create", "a")
    assert "exists already" in oci("create", "a", check=False).stderr
    oci("delete", "--force", "a")


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


def test_a_hook_that_fails_leaves_nothing(oci: Runtime) -> None:
    config = oci.config()
    config["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
    oci.configure(config)
    assert "exit status 1" in oci("create", "a", check=False).stderr


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


def test_a_terminal_is_handed_over(oci: Runtime, tmp_path: Path) -> None:
    oci.shell("tty; stty size; test -c /dev/console", terminal=True, consoleSize={"height": 30, "width": 90})
    path = tmp_path / "console"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen(1)
        oci("create", "--console-socket", str(path), "a")
        with listening.accept()[0] as channel:
            (master,) = socket.recv_fds(channel, 100, 1)[1]
    oci("start", "a")
    said = b""
    try:
        while data := os.read(master, 1000):
            said += data
    except OSError:  # EIO: the other side is closed
        pass
    os.close(master)
    assert said.split() == [b"/dev/pts/0", b"30", b"90"]
    oci("delete", "--force", "a")


def test_run_relays_a_terminal(oci: Runtime) -> None:
    oci.shell("test -t 0 && echo yes; exit 4", terminal=True)
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(oci.bundle)
        os.execv(oci.command("run", "a")[0], oci.command("run", "a"))
    said = b""
    try:
        while data := os.read(master, 1000):
            said += data
    except OSError:
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4 and b"yes" in said
    os.close(master)


def test_run_passes_signals_on(oci: Runtime) -> None:
    oci.shell("trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    with subprocess.Popen(oci.command("run", "a"), cwd=oci.bundle, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "got\n"
    assert process.returncode == 5


@pytest.mark.parametrize(
    ("change", "script", "expected"),
    [
        ({"hostname": "box"}, "hostname", "box"),
        ({"domainname": "there"}, "cat /proc/sys/kernel/domainname", "there"),
        ({"linux.sysctl": {"net.ipv4.ip_forward": "1"}}, "cat /proc/sys/net/ipv4/ip_forward", "1"),
        ({"process.oomScoreAdj": 321}, "cat /proc/self/oom_score_adj", "321"),
        ({"process.user": {"uid": 5, "gid": 6, "umask": 0o77}}, "id -u; id -g; umask", "5 6 0077"),
        ({"process.user": {"uid": 5, "gid": 6, "additionalGids": [7]}}, "id -G", "6 7"),
        ({"process.rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]}, "ulimit -c", "0"),
        ({"linux.maskedPaths": ["/etc/hidden", "/hidden"]}, "cat /etc/hidden; ls /hidden; echo .", "."),
        ({"linux.readonlyPaths": ["/etc"]}, "touch /etc/x 2>/dev/null || echo no", "no"),
        ({"root.readonly": True}, "touch /x 2>/dev/null || echo no", "no"),
        ({"process.cwd": "/made/here"}, "pwd", "/made/here"),
        ({"linux.devices": [{"path": "/dev/my/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600}]},
         "stat -c '%a %t %T' /dev/my/zero", "600 1 5"),
        ({"linux.personality": {"domain": "LINUX32"}}, "uname -m | sed s/i.86/32/", "32"),
        ({"process.scheduler": {"policy": "SCHED_BATCH", "nice": 5}}, "cut -d' ' -f19 /proc/self/stat", "5"),
        ({"process.ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 0}}, "ionice", "idle"),
        ({"linux.resources.pids": {"limit": 9}}, "cat /sys/fs/cgroup/pids/pids.max", "9"),
        ({"linux.resources.memory": {"limit": 33554432}}, "cat /sys/fs/cgroup/*/memory.limit_in_bytes", "33554432"),
    ],
)  # fmt: skip
def test_fields_take_effect(oci: Runtime, change: dict[str, Any], script: str, expected: str) -> None:
    if script.startswith("cat /sys/fs/cgroup") and not all_hierarchies().v1:
        pytest.skip("the file is cgroup v1's, and this host has v2 only")
    rootfs = oci.bundle / "rootfs"
    (rootfs / "hidden").mkdir()
    (rootfs / "hidden" / "x").touch()
    (rootfs / "etc").mkdir(exist_ok=True)
    (rootfs / "etc" / "hidden").write_text("secret\n")
    oci.shell(script)
    config = oci.config()
    for path, value in change.items():
        *parents, last = path.split(".")
        place = config
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = value
    oci.configure(config)
    assert oci("run", "a").stdout.split() == expected.split()


def test_mounts_of_every_kind(oci: Runtime, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("content\n")
    full = oci.bundle / "rootfs" / "full"
    (full / "below").mkdir(parents=True)
    (full / "below" / "file").write_text("copied\n")
    (full / "link").symlink_to("below/file")
    config = oci.config()
    config["mounts"] += [
        {"destination": "/ro", "type": "bind", "source": str(source), "options": ["bind", "ro"]},
        {"destination": "/one/file", "type": "bind", "source": str(source / "file"), "options": ["bind"]},
        {"destination": "/full", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]},
    ]
    oci.configure(config)
    oci.shell("cat /ro/file /one/file /full/link; touch /ro/x 2>/dev/null || echo no; touch /full/new && echo yes")
    assert oci("run", "a").stdout == "content\ncontent\ncopied\nno\nyes\n"
    assert not (full / "new").exists()


def test_a_time_namespace_with_an_offset(oci: Runtime) -> None:
    config = oci.config()
    config["linux"]["namespaces"].append({"type": "time"})
    config["linux"]["timeOffsets"] = {"boottime": {"secs": 1_000_000}}
    oci.configure(config)
    oci.shell("cut -d. -f1 /proc/uptime")
    assert int(oci("run", "a").stdout) > 1_000_000


def test_a_user_namespace_with_a_range(oci: Runtime) -> None:
    config = oci.config()
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 200_000, "size": 65_536}]
    config["linux"]["gidMappings"] = config["linux"]["uidMappings"]
    oci.configure(config)
    oci.shell("id -u; cat /proc/self/uid_map; test -c /dev/null && echo null > /dev/null && echo ok")
    assert oci("run", "a").stdout.split() == ["0", "0", "200000", "65536", "ok"]


def test_a_namespace_by_its_path(oci: Runtime) -> None:
    config = oci.config()
    own = f"/proc/{os.getpid()}/ns/net"
    config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "network"]
    config["linux"]["namespaces"].append({"type": "network", "path": own})
    oci.configure(config)
    oci.shell("readlink /proc/self/ns/net")
    assert oci("run", "a").stdout.strip() == os.readlink(own)


def test_without_pivot_root(oci: Runtime) -> None:
    oci.shell("ls / | wc -l; test -e /proc/1/root/work && echo host; true")
    assert "host" not in oci("run", "--no-pivot", "a").stdout


def test_descriptors_are_kept_only_when_asked_for(oci: Runtime, tmp_path: Path) -> None:
    oci.shell("ls /proc/self/fd | wc -l")
    (tmp_path / "file").touch()
    with (tmp_path / "file").open() as stream:
        os.dup2(stream.fileno(), 30)
        plain = oci("run", "a", pass_fds=(30,)).stdout
        kept = oci("run", "--preserve-fds", "28", "b", pass_fds=(30,)).stdout
        os.close(30)
    assert int(kept) == int(plain) + 1


def test_errors_go_to_the_log_as_json(oci: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert oci("--log", str(log), "--log-format", "json", "start", "nobody", check=False).returncode == 1
    assert json.loads(log.read_text())["msg"] == "container nobody does not exist"


def test_spec_and_features(oci: Runtime, tmp_path: Path) -> None:
    oci("spec", "--bundle", str(tmp_path))
    assert json.loads((tmp_path / "config.json").read_text())["ociVersion"] == "1.2.0"
    assert "there already" in oci("spec", "--bundle", str(tmp_path), check=False).stderr
    assert json.loads(oci("features").stdout)["ociVersionMax"] == "1.2.0"


def test_explain_prints_a_bundles_plan_and_starts_nothing(oci: Runtime) -> None:
    listing = oci("--explain", "create", "a").stdout
    assert "clone3 CLONE_NEWNS" in listing and listing.rstrip().endswith("execve sh -c true")


def test_the_cgroup_of_a_bundle_that_names_none_goes_with_its_parent(oci: Runtime) -> None:
    config = oci.config()
    config["linux"]["cgroupsPath"] = ""
    oci.configure(config)
    oci("run", "a")
    found = all_hierarchies()
    assert not Cgroup("testbed-runtime/a", found).exists() and not Cgroup("testbed-runtime", found).exists()


@pytest.mark.parametrize(
    ("options", "mapping"), [(["rbind", "ridmap"], {}), (["bind"], {"containerID": 0, "hostID": 1234, "size": 1})]
)
def test_ids_of_a_bind_mount_are_mapped(
    oci: Runtime, tmp_path: Path, options: list[str], mapping: dict[str, int]
) -> None:
    (tmp_path / "file").touch()
    tmp_path.chmod(0o755)
    (oci.bundle / "rootfs" / "mapped").mkdir()
    config = oci.config()
    mount: dict[str, Any] = {"destination": "/mapped", "type": "bind", "source": str(tmp_path), "options": options}
    if mapping:
        mount |= {"uidMappings": [mapping], "gidMappings": [mapping]}
    else:  # the container's own mapping: what is root's on disk is root's inside
        config["linux"]["namespaces"].append({"type": "user"})
        config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    config["mounts"].append(mount)
    oci.configure(config)
    oci.shell("stat -c %u:%g /mapped/file; stat -c %u /bin/sh")
    assert oci("run", "a").stdout.split() == (["1234:1234", "0"] if mapping else ["0:0", "65534"])


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        ({"type": "tmpfs", "options": ["idmap"]}, "bind mounts only"),
        ({"type": "bind", "source": "/", "options": ["bind", "idmap"]}, "no mapping of its own"),
        ({"type": "bind", "source": "/", "uidMappings": [{"containerID": 0, "hostID": 0, "size": 0}],
          "gidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]}, "a mapping of 0 ids"),
    ],
)  # fmt: skip
def test_mappings_that_cannot_be_are_refused(oci: Runtime, mount: dict[str, Any], words: str) -> None:
    config = oci.config()
    config["mounts"].append({"destination": "/mapped", **mount})
    oci.configure(config)
    assert words in oci("create", "a", check=False).stderr


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


NOTIFICATION_RECEIVE, NOTIFICATION_SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_*, linux/seccomp.h


@pytest.mark.parametrize("when", ["run", "exec"])
def test_a_seccomp_listener_decides(oci: Runtime, tmp_path: Path, when: str) -> None:
    """It gets the descriptor with the state, and the container the answer that it gives."""
    path = tmp_path / "listener"
    config = oci.config()
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": str(path),
        "listenerMetadata": "for the test",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    }
    oci.configure(config)
    oci.shell("sleep 1000" if when == "exec" else "mkdir /made; echo $?")
    (oci.bundle / "rootfs" / "bin" / "mkdir").symlink_to("busybox")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen(2)
        command = oci.command("run", "a")
        process = subprocess.Popen(command, cwd=oci.bundle, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        message, descriptor = accepted(listening)
        first = process
        if when == "exec":
            os.close(descriptor)
            command = oci.command("exec", "a", "sh", "-c", "mkdir /made; echo $?")
            process = subprocess.Popen(
                command, cwd=oci.bundle, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            message, descriptor = accepted(listening)
        assert (message["fds"], message["metadata"]) == (["seccompFd"], "for the test")
        assert message["state"]["id"] == "a" and message["pid"] > 0
        request = bytearray(80)
        fcntl.ioctl(descriptor, NOTIFICATION_RECEIVE, request)
        (cookie,) = struct.unpack_from("=Q", request)
        fcntl.ioctl(descriptor, NOTIFICATION_SEND, struct.pack("=QqiI", cookie, 0, -errno.EDQUOT, 0))
        output, errors = process.communicate(timeout=30)
        assert (output, "quota" in errors.lower()) == ("1\n", True), errors
        os.close(descriptor)
    if when == "exec":
        oci("kill", "a", "KILL")
        first.communicate(timeout=30)


def accepted(listening: socket.socket) -> tuple[dict[str, Any], int]:
    listening.settimeout(30)
    with listening.accept()[0] as channel:
        data, descriptors, _, _ = socket.recv_fds(channel, 1 << 16, 1)
    return json.loads(data), descriptors[0]
