"""Whatever a file or a command line holds: exit status 1 and one clear line, never a traceback, and nothing is left."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from runtime.cgroups import Cgroup
from runtime.cgroups.placing import all_hierarchies
from runtime.launcher.build import COMMAND
from runtime.oci.state import StateDir, UnknownContainer
from runtime.processes import alive, start_time
from tests.runtime.command_line import Runtime
from tests.runtime.config.test_decode import changed

pytestmark = pytest.mark.root

# Null, wrong types, numbers at edges, empty, huge, with bytes that end or break lines, that lead up or are not UTF-8's.
EVIL: tuple[Any, ...] = (
    None, True, -1, 1 << 32, 1 << 64, 0.5, "", "..", "a\0b", "\ud800", "a\nb", "²", "y" * 5000, "/" + "d/" * 3000,
    "0-9999999", "5-3", [], {}, [None], [[]], [{}], {"": 0}, {"a\nb": "c"}, ["\0"], [0] * 100,
)  # fmt: skip


def everything() -> dict[str, Any]:
    """A configuration in which every object of the specification is there once."""
    mapping = [{"containerID": 0, "hostID": 0, "size": 1}]
    config = changed("hooks", {})
    for name in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"):
        config["hooks"][name] = [{"path": "/x", "args": ["a"], "env": ["A=b"], "timeout": 1}]
    bind = {"destination": "/m", "type": "bind", "source": "/", "options": ["rbind", "idmap"]}
    config["mounts"].append({**bind, "uidMappings": mapping, "gidMappings": mapping})
    config |= {"annotations": {"a": "b"}, "domainname": "x"}
    config["process"] |= {
        "terminal": False, "user": {"uid": 0, "gid": 0, "umask": 0, "additionalGids": [1]}, "oomScoreAdj": 1,
        "consoleSize": {"height": 1, "width": 1}, "execCPUAffinity": {"initial": "0", "final": "0"},
        "scheduler": {"policy": "SCHED_OTHER", "nice": 0, "flags": []},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 1},
    }  # fmt: skip
    device = {"major": 8, "minor": 0}
    config["linux"]["resources"] |= {
        "memory": {"limit": 1 << 25, "swap": 1 << 26, "swappiness": 5}, "pids": {"limit": 5},
        "cpu": {"shares": 2, "quota": 10000, "period": 10000, "cpus": "0", "mems": "0"},
        "blockIO": {"weightDevice": [{**device, "weight": 10}], "throttleReadBpsDevice": [{**device, "rate": 5}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 0}], "rdma": {"m": {"hcaHandles": 1}},
        "network": {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]}, "unified": {"memory.high": "1"},
    }  # fmt: skip
    call = {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}
    config["linux"] |= {
        "sysctl": {"net.ipv4.ip_forward": "1"}, "cgroupsPath": "/x", "personality": {"domain": "LINUX"},
        "devices": [{"path": "/dev/q", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0}],
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": []}, "netDevices": {"eth9": {"name": "x"}},
        "timeOffsets": {"boottime": {"secs": 1, "nanosecs": 1}}, "rootfsPropagation": "private",
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [call]},
    }  # fmt: skip
    config["linux"]["namespaces"].append({"type": "time"})
    return config


EVERYTHING = everything()


def places(value: Any, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield above
    for name, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*above, name))


def at(place: tuple[str | int, ...], value: object) -> Any:
    if not place:
        return value
    config = deepcopy(EVERYTHING)
    inner: Any = config
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    return config


def said(root: Path, *arguments: str) -> tuple[int, str]:
    """The exit status of a command, and what it says of errors: one line for a person, or how it is used."""
    command, cwd = [str(COMMAND), f"--root={root}", *arguments], root.parent
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=cwd, timeout=60
    )
    errors = done.stderr.decode(errors="replace")
    assert done.returncode in (0, 1, 2, 5), errors
    assert "Traceback" not in errors and "internal" not in errors, errors
    if done.returncode == 2:
        assert errors.startswith("usage: "), errors
    elif done.returncode:
        (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert len(line) < 3000 and line.isprintable()
    return done.returncode, errors


@pytest.mark.no_cover
@pytest.mark.parametrize("first", sorted(EVERYTHING))
def test_a_configuration_with_anything_in_the_place_of_anything(first: str, tmp_path: Path) -> None:
    """A third of the values, others in each place; those that are decoded alike are many, and have all of them."""
    (tmp_path / "rootfs").mkdir()
    chance = random.Random(first)
    for place in places(EVERYTHING):
        for value in chance.sample(EVIL, len(EVIL) // 3) if place[:1] == (first,) else ():
            (tmp_path / "config.json").write_text(json.dumps(at(place, value)))
            said(tmp_path / "state", "--explain", "create", f"--bundle={tmp_path}", "a")


@pytest.mark.parametrize("place", [place for place in places(EVERYTHING) if place[-1:] == (0,)], ids=str)
def test_a_configuration_with_very_many_of_something(place: tuple[str | int, ...], tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    inner: Any = EVERYTHING
    for name in place:
        inner = inner[name]
    (tmp_path / "config.json").write_text(json.dumps(at(place[:-1], [inner] * 20_000)))
    said(tmp_path / "state", "--explain", "create", f"--bundle={tmp_path}", "a")


def left(runtime: Runtime, cgroup: str) -> list[object]:
    """What a command has left: state, processes, cgroups."""
    return [*runtime.root.glob("*"), *([cgroup] if Cgroup(cgroup, all_hierarchies()).exists() else [])]


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("linux", "cgroupsPath"), "/a\nb", "not the name of a cgroup"),
        (("linux", "cgroupsPath"), "/" + "x" * 300, "not the name of a cgroup"),
        (("linux", "uidMappings"), [{"containerID": 0, "hostID": 0, "size": 5}] * 2, "uid_map: Invalid argument"),
        (("linux", "uidMappings"), [{"containerID": 0, "hostID": 4294967290, "size": 9}], "not so many"),
        (("process", "user"), {"uid": 4294967295}, "process.user.uid"),
        (("process", "user"), {"uid": 0, "gid": 4294967296}, "process.user.gid"),
        (("process", "rlimits"), [{"type": "RLIM_INFINITY", "soft": 0, "hard": 0}], "unknown resource limit"),
        (("process", "args"), ["x" * (1 << 20)], "exec: |executable file"),
    ],
)
def test_what_fails_leaves_nothing(oci: Runtime, place: tuple[str, str], value: object, words: str) -> None:
    config = oci.config()
    if place[1] == "uidMappings":
        config["linux"]["namespaces"].append({"type": "user"})
        config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 0, "size": 1}]
    config[place[0]][place[1]] = value
    oci.configure(config)
    cgroup = config["linux"]["cgroupsPath"].strip("/")
    for command in ("create", "run"):
        done = oci(command, "a", check=False)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert any(each in done.stderr for each in words.split("|")), done.stderr
        assert left(oci, cgroup) == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
def test_another_encoding_is_refused_before_anything_is_made(oci: Runtime, encoding: str) -> None:
    cgroup = oci.config()["linux"]["cgroupsPath"].strip("/")
    (oci.bundle / "config.json").write_bytes(json.dumps(oci.config()).encode(encoding))
    for command in ("create", "run"):
        done = oci(command, "a", check=False)
        assert done.returncode == 1 and "Traceback" not in done.stderr and "config.json" in done.stderr
        assert left(oci, cgroup) == []


@pytest.mark.parametrize("moved", ["bundle", "rootfs"])
def test_a_path_that_is_not_utf_8_is_named(oci: Runtime, moved: str) -> None:
    directory = {"bundle": oci.bundle, "rootfs": oci.bundle / "rootfs"}[moved]
    odd = oci.bundle.parent / os.fsdecode(b"\xff\x1bb")
    directory.rename(odd)
    directory.symlink_to(odd)
    for command in (("create", "a"), ("--explain", "create", "a"), ("run", "a")):
        done = oci(*command, check=False)
        assert done.returncode == 1 and done.stderr.endswith("must be UTF-8\n") and "Traceback" not in done.stderr
        assert "\x1b" not in done.stderr and left(oci, oci.config()["linux"]["cgroupsPath"].strip("/")) == []
    directory.unlink()
    odd.rename(directory)


def test_ids_of_every_length(oci: Runtime) -> None:
    for length in (1, 199, 200, 233):
        assert oci("run", "a" * length).returncode == 0
    for length in (234, 255, 256, 1024, 100_000):
        for command in (("run",), ("create",), ("state",), ("delete", "--force"), ("kill",), ("exec",)):
            done = oci(*command, "a" * length, *(["true"] if command == ("exec",) else []), check=False)
            assert done.returncode == 1 and "not a name" in done.stderr and len(done.stderr) < 500


COMMANDS = (
    ("state", "a"), ("list",), ("ps", "a"), ("exec", "a", "true"), ("kill", "a", "0"), ("pause", "a"), ("resume", "a"),
    ("update", "--memory", "10000000", "a"), ("events", "--stats", "a"), ("start", "a"), ("delete", "a"),
)  # fmt: skip


def damaged(name: str, content: bytes) -> Iterator[bytes]:
    yield from (b"", b"{", b"null", b"[]", b"\xff\xfe", b"-1 5\n", b"99999999999999999999 1\n", b"1 2 3\n")
    yield from (content[: len(content) // 2], content + b"x")
    if name == "record.json":
        record = json.loads(content)
        for field in record:
            others: tuple[object, ...] = (None, 5, "/../..", {"a": 1})
            yield from (json.dumps({**record, field: value}).encode() for value in others)
            yield json.dumps({each: value for each, value in record.items() if each != field}).encode()
        for choice in record["choices"]:
            yield json.dumps({**record, "choices": {**record["choices"], choice: []}}).encode()


def test_a_paused_container_whose_record_is_damaged_can_be_deleted(oci: Runtime) -> None:
    """Where the host has cgroup v1, what is frozen does not die."""
    oci.shell("sleep 1000")
    oci("create", "a")
    oci("start", "a")
    pid = oci.state("a")["pid"]
    started = start_time(pid)
    cgroup = Cgroup(oci.config()["linux"]["cgroupsPath"].strip("/"), all_hierarchies())
    oci("pause", "a")
    (oci.root / "a" / "record.json").write_text("{")
    assert said(oci.root, "delete", "--force", "a")[0] == 0
    assert not (oci.root / "a").exists() and not alive(pid, started)
    cgroup.remove()


@pytest.mark.parametrize("name", ["record.json", "process", "lock", "start"])
def test_damaged_state(name: str, oci: Runtime) -> None:
    """Each command says so; ``delete --force`` takes it away, and the process with it."""
    oci.shell("sleep 1000")
    oci("create", "a")
    oci("start", "a")
    pid = oci.state("a")["pid"]
    started = start_time(pid)
    cgroup = oci.config()["linux"]["cgroupsPath"].strip("/")
    path = oci.root / "a" / name
    content = path.read_bytes() if path.exists() else b""
    saved = oci.root.parent / "saved"
    shutil.copytree(oci.root / "a", saved)
    chance = random.Random(name)
    for variant in damaged(name, content):
        for command in chance.sample(COMMANDS, len(COMMANDS) // 2):  # all read it in the same way
            path.write_bytes(variant)
            said(oci.root, *command)
            shutil.copytree(saved, oci.root / "a", dirs_exist_ok=True)
            (oci.root / "a" / "start").unlink(missing_ok=True)
    if name != "lock":
        path.unlink(missing_ok=True)
        path.mkdir()
        for command in COMMANDS:
            said(oci.root, *command)
    said(oci.root, "delete", "--force", "a")
    assert not (oci.root / "a").exists()
    if name != "process":
        assert not alive(pid, started)
    Cgroup(cgroup, all_hierarchies()).kill()
    Cgroup(cgroup, all_hierarchies()).remove()


WORDS = (
    "-1", "0", "4294967295", "4294967296", "9" * 25, "9" * 5000, "²", "1e3", "nan", "inf", "", "x", "/", "é", "\udcff",
    "a\nb", "x" * 300, "-", "--", "=", "A", "..", "1:", "1:-1", ":", "1:4294967295", "0x10", " 1", "1_0", "\x1b[31m",
)  # fmt: skip
_UPDATE = ("memory", "memory-reservation", "memory-swap", "cpu-period", "cpu-quota", "cpu-share", "pids-limit",
           "blkio-weight", "cpuset-cpus", "cpuset-mems", "resources")  # fmt: skip
LINES: tuple[tuple[str, ...], ...] = (
    *(("exec", f"--{flag}", "?", "a", "true") for flag in ("user", "additional-gids", "preserve-fds", "env", "cwd",
                                                            "cap", "pid-file", "process")),
    *(("update", f"--{flag}", "?", "a") for flag in _UPDATE),
    *((name, "?") for name in ("state", "start", "delete", "kill", "ps", "pause", "image-run", "create")),
    ("kill", "a", "?"), ("exec", "a", "?"), ("create", "--bundle", "?", "b"), ("create", "--pid-file", "?", "b"),
    ("create", "--preserve-fds", "?", "b"), ("create", "--console-socket", "?", "b"), ("start", "--failed", "?", "a"),
    ("events", "--stats", "--interval", "?", "a"), ("start", "--failed", "1:?", "a"),
)  # fmt: skip
MAKING = ("create", "image-run")


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_words_of_the_command_line(line: tuple[str, ...], oci: Runtime) -> None:
    oci.shell("sleep 1000")
    oci("create", "a")
    oci("start", "a")
    for word in WORDS:
        said(oci.root, *(part.replace("?", word) for part in line))
        for name in ("b", word) if line[0] in MAKING else ():
            said(oci.root, "delete", "--force", "--", name)
    for name in os.listdir(oci.root):
        oci("delete", "--force", name)


@pytest.mark.parametrize("user", ["4294967295", "4294967296", "0:4294967295", "-1", "²", "18446744073709551616"])
def test_exec_as_nobody_is_refused(oci: Runtime, user: str) -> None:
    """It ran as root, with all of the container's capabilities."""
    oci.shell("sleep 1000")
    oci("create", "a")
    oci("start", "a")
    done = oci("exec", "--user", user, "a", "id", "-u", check=False)
    assert done.returncode in (1, 2) and done.stdout == ""
    assert oci("exec", "--user", "4294967294", "a", "id", "-u").stdout == "4294967294\n"
    oci("delete", "--force", "a")


@pytest.mark.parametrize("command", [("create", "a"), ("run", "--detach", "a")])
def test_a_pid_file_that_cannot_be_written_leaves_nothing(oci: Runtime, command: tuple[str, ...]) -> None:
    oci.shell("sleep 1000")
    done = oci(command[0], "--pid-file", "/none/pid", *command[1:], check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: write the pid file /none/pid: No such file")
    assert left(oci, oci.config()["linux"]["cgroupsPath"].strip("/")) == []


def test_exec_with_such_a_pid_file_leaves_no_process(oci: Runtime) -> None:
    oci.shell("sleep 1000")
    oci("run", "--detach", "a")
    done = oci("exec", "--pid-file", "/none/pid", "a", "sleep", "999", check=False)
    assert done.returncode == 1 and len(json.loads(oci("ps", "--format", "json", "a").stdout)) == 1
    oci("delete", "--force", "a")


def coming_and_going(oci: Runtime) -> subprocess.Popen[bytes]:
    """A session in which a container is run again and again."""
    return subprocess.Popen(
        ["sh", "-c", 'while :; do "$@" run --bundle . b; done', "sh", *oci.command()],
        cwd=oci.bundle, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def test_list_beside_containers_that_come_and_go(oci: Runtime) -> None:
    going = coming_and_going(oci)
    try:
        for _ in range(25):
            done = oci("list", "--format", "json")
            assert done.stderr == "" and len(json.loads(done.stdout)) <= 1
    finally:
        os.killpg(going.pid, 15)
        going.wait()
        oci("delete", "--force", "b")


def test_the_state_of_one_that_is_deleted_meanwhile(oci: Runtime, tmp_path: Path) -> None:
    going = coming_and_going(oci)
    try:
        outcomes = {said(oci.root, "state", "b") for _ in range(200)}
    finally:
        os.killpg(going.pid, 15)
        going.wait()
        oci("delete", "--force", "b")
    assert outcomes == {(0, ""), (1, "error: container b does not exist\n")}
    with pytest.raises(UnknownContainer, match="container a does not exist"):  # its record has been read
        StateDir(tmp_path, "a").created()
