"""What the fields of a configuration do to a container, through the command line."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runtime.cgroups.placing import all_hierarchies
from tests.runtime.command_line import Runtime
from tests.waiting import until

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("change", "script", "expected"),
    [
        ({"hostname": "box"}, "hostname", "box"),
        ({"domainname": "there"}, "cat /proc/sys/kernel/domainname", "there"),
        ({"linux.sysctl": {"net.ipv4.ip_forward": "1"}}, "cat /proc/sys/net/ipv4/ip_forward", "1"),
        ({"process.oomScoreAdj": 321}, "cat /proc/self/oom_score_adj", "321"),
        ({"process.user": {"uid": 5, "gid": 6, "umask": 0o77}}, "id -u; id -g; umask", "5 6 0077"),
        ({"process.user": {"uid": 5, "gid": 6, "additionalGids": [7]}}, "id -G", "6 7"),
        ({"process.rlimits": [{"type": "RLIMIT_LOCKS", "soft": 7, "hard": 8}]},
         "grep locks /proc/self/limits", "Max file locks 7 8 locks"),
        ({"process.env": ["PATH=/nowhere", "A=1", "A=2", "PATH=/bin"]}, "echo $A $PATH", "2 /bin"),
        ({"linux.memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}},
         "grep -o 'bind[=a-z]*:0' /proc/self/numa_maps | head -1", "bind=static:0"),
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


def test_the_last_of_a_variables_values_wins(oci: Runtime) -> None:
    """As with ``podman exec --env``, which adds to what the container has."""
    oci.shell("sleep 1000", env=["PATH=/bin", "A=old", "B=kept"])
    oci("run", "--detach", "a")
    done = oci("exec", "--env", "A=new", "--env", "C=1", "--env", "C=2", "a", "sh", "-c", "echo $A $B $C")
    assert done.stdout == "new kept 2\n"
    oci("delete", "--force", "a")


@pytest.mark.parametrize("when", ["run", "exec"])
def test_a_capability_that_is_not_ours_is_left_out(oci: Runtime, when: str) -> None:
    """In a runtime that has lost one itself, and may still give the others."""
    lost, kept = "CAP_SYS_TIME", "CAP_KILL"
    runtime = replace(oci, inside=("setpriv", "--bounding-set", "-sys_time", "--"))
    config = runtime.config()
    for name in ("bounding", "permitted", "effective"):
        config["process"]["capabilities"][name] = [lost, kept]
    runtime.configure(config)
    show = "grep Cap /proc/self/status"
    runtime.shell(show if when == "run" else "sleep 1000")
    done = runtime("run", *(["--detach"] if when == "exec" else []), "a")
    assert f"left out: {lost}" in done.stderr
    if when == "exec":
        done = runtime("exec", "a", "sh", "-c", show)
        assert f"left out: {lost}" in done.stderr
        runtime("delete", "--force", "a")
    sets = dict(line.split() for line in done.stdout.splitlines())
    assert {int(sets[f"Cap{name}:"], 16) for name in ("Prm", "Eff", "Bnd")} == {1 << 5}


@pytest.mark.parametrize("when", ["run", "exec"])
def test_a_memory_policy_is_that_of_every_process(oci: Runtime, when: str) -> None:
    config = oci.config()
    config["linux"]["memoryPolicy"] = {"mode": "MPOL_INTERLEAVE", "nodes": "0"}
    oci.configure(config)
    show = "grep -c interleave:0 /proc/self/numa_maps"
    oci.shell(show if when == "run" else "sleep 1000")
    if when == "run":
        assert int(oci("run", "a").stdout) > 0
        return
    oci("run", "--detach", "a")
    assert int(oci("exec", "a", "sh", "-c", show).stdout) > 0
    oci("delete", "--force", "a")


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"mode": "MPOL_WISH"}, "linux.memoryPolicy.mode: 'MPOL_WISH'"),
        ({"mode": "MPOL_BIND", "flags": ["MPOL_F_X"]}, "linux.memoryPolicy.flags: 'MPOL_F_X'"),
        ({"mode": "MPOL_BIND", "nodes": "0-1024"}, "linux.memoryPolicy.nodes: '0-1024'"),
        ({"mode": "MPOL_BIND", "nodes": "900"}, "set_mempolicy MPOL_BIND nodes=900: Invalid argument"),
        ({"mode": "MPOL_BIND"}, "set_mempolicy MPOL_BIND nodes=: Invalid argument"),
        ({"mode": "MPOL_DEFAULT", "nodes": "0"}, "set_mempolicy MPOL_DEFAULT nodes=0: Invalid argument"),
    ],
)
def test_a_memory_policy_that_cannot_be_is_named(oci: Runtime, policy: dict[str, Any], words: str) -> None:
    config = oci.config()
    config["linux"]["memoryPolicy"] = policy
    oci.configure(config)
    done = oci("create", "a", check=False)
    assert done.returncode == 1 and words in done.stderr


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
        assert message["state"]["id"] == "a" and message["state"]["status"] == (
            "running" if when == "exec" else "created"
        )
        container = json.loads((oci.root / "a" / "process").read_text().split()[0])
        assert message["state"]["pid"] == container and (message["pid"] == container) == (when == "run")
        cmdline = Path(f"/proc/{message['pid']}/cmdline")
        until(lambda: b"mkdir /made" in cmdline.read_bytes(), 5)  # it is told of before its execve
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
