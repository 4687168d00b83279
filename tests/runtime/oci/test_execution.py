"""What a process finds that is started in a container, by ``run`` as by ``exec``: home, groups, cgroup, processors."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup
from runtime.cgroups.placing import all_hierarchies
from runtime.config.bundle import load_process
from runtime.config.process import Capabilities, Process, Rlimit
from runtime.errors import UsageError
from runtime.oci.execution import below, inherited
from tests.runtime.command_line import Runtime
from tests.waiting import until

pytestmark = pytest.mark.root

PASSWD = (
    "root:x:0:0::/root:/bin/sh\nnobody\n:x:7:7::/none:\nx:x:7:7::/x/y:/bin/sh\nlate:x:7:7::/late:\nlast:x:8:8::/last"
)


def home_of(oci: Runtime, uid: int, *environment: str) -> list[str]:
    """HOME of a user's process by ``run``, twice, the second time by the launcher alone; and by ``exec``."""
    oci.shell("echo $HOME; env | grep -c ^HOME=", user={"uid": uid, "gid": uid}, env=["PATH=/bin", *environment])
    homes = [oci("run", name, env={"HOME": "/ours"}).stdout for name in "ab"]
    oci.shell("sleep 100", env=["PATH=/bin", *environment])
    oci("run", "--detach", "c")
    homes.append(oci("exec", "--user", str(uid), "c", "sh", "-c", "echo $HOME; env | grep -c ^HOME=").stdout)
    oci("delete", "--force", "c")
    assert len(set(homes)) == 1, homes
    return homes[0].split()


@pytest.mark.parametrize(
    ("uid", "environment", "home"),
    [
        (0, (), "/root"),
        (0, ("HOME=",), "/root"),
        (0, ("HOME=/given",), "/given"),
        (7, (), "/none"),
        (8, (), "/last"),
        (9, (), "/"),
        (4294967294, (), "/"),
    ],
)
def test_home_is_what_the_containers_passwd_says(
    oci: Runtime, uid: int, environment: tuple[str, ...], home: str
) -> None:
    """Of two entries the first counts, one that is given counts more, an empty one does not: so with runc 1.1.5."""
    for name in ("env", "head"):
        (oci.bundle / "rootfs/bin" / name).symlink_to("busybox")
    (oci.bundle / "rootfs/etc/passwd").write_text(PASSWD)
    assert home_of(oci, uid, *environment) == [home, "1"]


def in_pieces(passwd: Path) -> None:
    passwd.write_text("".join(f"u{n}:x:{n}:{n}::/home/u{n}:/bin/sh\n" for n in range(1000, 20000)))


def of_another(passwd: Path) -> None:
    passwd.write_bytes(
        b"\n" * 1000 + b"::::::\nx:x:00x7:7::/no:\nx:x:4294967303:7::/no:\nx:x:7:7::/with\0nul:\nx:x:7:7::/no:"
    )


@pytest.mark.parametrize(
    ("make", "uid", "home"),
    [
        (lambda passwd: None, 7, "/"),
        (lambda passwd: passwd.mkdir(), 7, "/"),
        (os.mkfifo, 7, "/"),
        (lambda passwd: os.mknod(passwd, 0o20666, os.makedev(1, 5)), 7, "/"),
        (lambda passwd: passwd.symlink_to("/proc/kmsg"), 0, "/"),
        (lambda passwd: passwd.symlink_to("/proc/self/fd/0"), 0, "/"),
        (lambda passwd: passwd.symlink_to("passwd"), 0, "/"),
        (lambda passwd: passwd.symlink_to("../../../../../../etc/passwd-"), 0, "/inside"),
        (lambda passwd: os.truncate(os.open(passwd, os.O_CREAT | os.O_RDWR), 1 << 40), 7, "/"),
        (lambda passwd: passwd.write_bytes(b"x:x:7:7::/" + b"h" * 5000 + b":\n"), 7, "/"),
        (in_pieces, 19999, "/home/u19999"),
        (of_another, 7, "/"),
    ],
    ids=["absent", "directory", "fifo", "device", "kmsg", "magic", "loop", "link", "huge", "long", "many", "malformed"],
)
def test_a_hostile_passwd_has_nobody_at_home(oci: Runtime, make: Callable[[Path], object], uid: int, home: str) -> None:
    (oci.bundle / "rootfs/bin/env").symlink_to("busybox")
    (oci.bundle / "rootfs/etc/passwd-").write_text("root:x:0:0::/inside:\n")
    make(oci.bundle / "rootfs/etc/passwd")
    oci.shell("echo $HOME; env | grep -c ^HOME=", user={"uid": uid, "gid": 0}, env=["PATH=/bin"])
    assert oci("run", "a").stdout.split() == [home, "1"]


def test_a_mounted_passwd_counts(oci: Runtime, tmp_path: Path) -> None:
    """Engines mount their own over the image's."""
    (tmp_path / "passwd").write_text("x:x:0:0::/mounted:\n")
    (oci.bundle / "rootfs/etc/passwd").write_text(PASSWD)
    config = oci.config()
    config["mounts"].append({"destination": "/etc/passwd", "source": f"{tmp_path}/passwd", "options": ["bind"]})
    oci.configure(config)
    oci.shell("echo $HOME", env=["PATH=/bin"])
    assert oci("run", "a").stdout == "/mounted\n"


def test_one_task_is_enough(oci: Runtime) -> None:
    config = oci.config()
    config["linux"].setdefault("resources", {})["pids"] = {"limit": 1}
    oci.configure(config)
    config["process"]["args"] = ["cat", "/proc/self/cgroup"]
    oci.configure(config)
    for name in "ab":
        lines = oci("run", name).stdout.split()
        assert lines and all(line.endswith(":/") for line in lines)
    config["process"]["args"] = ["sh", "-c", "sleep 1000 & wait"]
    oci.configure(config)
    assert "can't fork" in oci("run", "c", check=False).stderr


def test_the_last_task_can_be_executed(oci: Runtime) -> None:
    """Where two tasks are allowed and one runs, there is room for one more, and ours take none."""
    config = oci.config()
    config["linux"].setdefault("resources", {})["pids"] = {"limit": 2}
    oci.configure(config)
    config["process"]["args"] = ["sleep", "1000"]
    oci.configure(config)
    oci("run", "--detach", "a")
    assert oci("exec", "a", "cat", "/proc/1/cmdline").stdout == "sleep\x001000\x00"
    oci("delete", "--force", "a")


def test_the_callers_processors_are_not_the_containers(oci: Runtime) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors")
    config = oci.config()
    config["linux"].setdefault("resources", {})["cpu"] = {"cpus": f"0-{max(os.sched_getaffinity(0))}"}
    oci.configure(config)
    oci.shell("grep Cpus_allowed_list /proc/self/status; sleep 1000")
    narrow = Runtime(oci.root, oci.bundle, ("taskset", "--cpu-list", "0"))
    everything = f"0-{max(os.sched_getaffinity(0))}"
    oci("create", "a")
    oci("delete", "--force", "a")
    narrow("run", "--detach", "a")
    pid = oci.state("a")["pid"]
    assert f"Cpus_allowed_list:\t{everything}\n" in Path(f"/proc/{pid}/status").read_text()
    allowed = ("exec", "a", "grep", "Cpus_allowed_list", "/proc/self/status")
    assert narrow(*allowed).stdout.split()[1] == everything
    oci("update", "--cpuset-cpus", "0", "a")
    assert oci(*allowed).stdout.split()[1] == "0"
    oci("update", "--cpuset-cpus", everything, "a")
    assert f"Cpus_allowed_list:\t{everything}\n" in Path(f"/proc/{pid}/status").read_text()
    oci("delete", "--force", "a")


@pytest.mark.parametrize("keeps", [False, True])
def test_crun_s_annotation_keeps_the_callers_groups(oci: Runtime, keeps: bool) -> None:
    config = oci.config()
    config["annotations"] = {"run.oci.keep_original_groups": "1"} if keeps else {}
    oci.configure(config)
    oci.shell("grep ^Groups: /proc/self/status; sleep 1000", user={"uid": 5, "gid": 6})
    groups = Runtime(oci.root, oci.bundle, ("setpriv", "--groups", "1234,2345"))
    expected = ["Groups:", *(["1234", "2345"] if keeps else [])]
    groups("run", "--detach", "a")
    assert groups("exec", "a", "grep", "^Groups:", "/proc/self/status").stdout.split() == expected
    pid = oci.state("a")["pid"]
    assert "\n" + "\t".join([expected[0], " ".join(expected[1:])]).rstrip() in Path(f"/proc/{pid}/status").read_text()
    oci("delete", "--force", "a")


def test_a_process_from_a_file_has_the_containers_rights(oci: Runtime) -> None:
    """As runc 1.1.5 and crun 1.8.1 do; a file that speaks of them is obeyed."""
    script = "grep -E '^(CapEff|CapBnd|CapPrm)' /proc/self/status"
    oci.shell("sleep 1000")
    oci("run", "--detach", "a")
    pid = oci.state("a")["pid"]
    own = [line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "Cap" in line]
    process = oci.bundle / "process.json"
    wanted = {"cwd": "/", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}
    process.write_text(json.dumps(wanted))
    said = oci("exec", "--process", str(process), "a").stdout.split()
    assert said[1::2] == own[1:4] and int(own[2], 16) > 0
    process.write_text(json.dumps({**wanted, "capabilities": {"bounding": ["CAP_CHOWN"]}}))
    assert oci("exec", "--process", str(process), "a").stdout.split()[5] == f"{1:016x}"
    oci("delete", "--force", "a")


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_few_descriptors_are_enough(oci: Runtime, no_new_privileges: bool) -> None:
    """Fewer than the launcher uses itself."""
    limit = [{"type": "RLIMIT_NOFILE", "soft": 8, "hard": 9}]
    oci.shell("ulimit -n; ulimit -Hn; sleep 1000", rlimits=limit, noNewPrivileges=no_new_privileges)
    oci("run", "--detach", "a")
    assert oci("exec", "a", "sh", "-c", "ulimit -n; ulimit -Hn").stdout.split() == ["8", "9"]
    pid = oci.state("a")["pid"]
    assert ["8", "9"] in [line.split()[3:5] for line in Path(f"/proc/{pid}/limits").read_text().splitlines()]
    oci("delete", "--force", "a")


def test_what_a_file_leaves_out_is_the_containers(tmp_path: Path) -> None:
    own = Process(
        cwd="/", capabilities=Capabilities(("CAP_CHOWN",)), rlimits=(Rlimit("RLIMIT_CORE", 1, 1),),
        apparmor_profile="p", selinux_label="l", no_new_privileges=True, env=("A=b",),
    )  # fmt: skip
    (tmp_path / "process.json").write_text('{"cwd": "/x", "args": ["y"]}')
    found = inherited(load_process(tmp_path / "process.json"), own)
    kept = ("capabilities", "apparmor_profile", "selinux_label")
    assert all(getattr(found, name) == getattr(own, name) for name in kept)
    assert (found.cwd, found.args, found.env, found.rlimits) == ("/x", ("y",), (), ())
    assert not found.no_new_privileges


def test_a_process_goes_into_a_cgroup_below_the_containers(oci: Runtime) -> None:
    found = all_hierarchies()
    if not found.v1:
        pytest.skip("cgroup v2's are checked in a guest")
    oci.shell("sleep 1000")
    oci("run", "--detach", "a")
    own = oci.config()["linux"]["cgroupsPath"].strip("/")
    for mount in found.used:
        (mount / own / "sub").mkdir()
    (found.v1["cpuset"] / own / "sub/cpuset.cpus").write_text("0")
    (found.v1["cpuset"] / own / "sub/cpuset.mems").write_text("0")

    def cgroups(*arguments: str) -> dict[str, str]:
        said = oci("exec", *arguments, "a", "cat", "/proc/self/cgroup").stdout
        return {line.split(":")[1]: line.split(":")[2] for line in said.splitlines()}

    everywhere = cgroups("--cgroup", "sub")
    for controller in ("memory", "pids", "cpu"):
        assert everywhere[controller] == "/sub"
    some = cgroups("--cgroup", "memory,pids:/sub", "--cgroup", "cpu:")
    assert [some[name].endswith("/sub") for name in ("memory", "pids", "cpu", "devices")] == [True, True, False, False]
    for wrong in ("nowhere", "../..", "nonsense:sub"):
        assert f"exec --cgroup {wrong}: " in oci("exec", "--cgroup", wrong, "a", "true", check=False).stderr
    oci("delete", "--force", "a")


def test_one_of_several_cgroups_needs_a_controller() -> None:
    with pytest.raises(UsageError, match="needs its controllers"):
        below("x", ("a", "memory:b"), all_hierarchies())


def test_a_paused_container_takes_a_process_if_it_is_asked_to(oci: Runtime) -> None:
    oci.shell("sleep 1000")
    oci("run", "--detach", "a")
    oci("pause", "a")
    assert "--ignore-paused" in oci("exec", "a", "true", check=False).stderr
    command = oci.command("exec", "--ignore-paused", "a", "sh", "-c", "echo done")
    with subprocess.Popen(command, cwd=oci.bundle, stdout=subprocess.PIPE, text=True) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        oci("resume", "a")
        assert process.stdout and process.stdout.read() == "done\n"
    assert process.returncode == 0
    oci("pause", "a")
    command = oci.command("exec", "--ignore-paused", "a", "sh", "-c", "trap 'exit 9' USR1; echo up; sleep 1000 & wait")
    with subprocess.Popen(command, cwd=oci.bundle, stdout=subprocess.PIPE, text=True) as process:
        oci("resume", "a")
        assert process.stdout and process.stdout.readline() == "up\n"
        until(lambda: "[signalfd]" in str([os.readlink(link) for link in Path(f"/proc/{process.pid}/fd").iterdir()]))
        process.send_signal(signal.SIGUSR1)
        assert process.wait(30) == 9
    oci("delete", "--force", "a")


def pid_of(pidfd: int) -> int:
    lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
    os.close(pidfd)
    return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))


def test_a_pidfd_of_the_process_goes_to_a_socket(oci: Runtime, tmp_path: Path) -> None:
    """With runc's words for which of the two it is."""
    oci.shell("sleep 1000")
    path = str(tmp_path / "pidfds")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen(2)
        oci("create", "--pidfd-socket", path, "a")
        with listening.accept()[0] as channel:
            name, (pidfd,), _, _ = socket.recv_fds(channel, 100, 1)
        assert (name, pid_of(pidfd)) == (b"standard", oci.state("a")["pid"])
        oci("start", "a")
        pid_file = tmp_path / "pid"
        oci("exec", "--pidfd-socket", path, "--pid-file", str(pid_file), "--detach", "a", "sleep", "1000")
        with listening.accept()[0] as channel:
            name, (pidfd,), _, _ = socket.recv_fds(channel, 100, 1)
        assert (name, pid_of(pidfd)) == (b"setns", int(pid_file.read_text()))
    oci("delete", "--force", "a")


@pytest.mark.parametrize("how", ["run", "run again", "exec"])
@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGCONT, signal.SIGPIPE, signal.SIGALRM, 40])
def test_signals_go_on(oci: Runtime, how: str, number: int) -> None:
    """All that a process can be sent and that says nothing about ourselves."""
    script = f"trap 'echo got; exit 5' {number:d}; echo ready; while :; do sleep 0.05; done"
    oci.shell("sleep 1000" if how == "exec" else script)
    if how == "exec":
        oci("run", "--detach", "b")
        command = oci.command("exec", "b", "sh", "-c", script)
    else:
        command = oci.command("run", "a")
    if how == "run again":
        oci.shell("true")
        oci("run", "a")
        oci.shell(script)
    with subprocess.Popen(command, cwd=oci.bundle, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.communicate(timeout=30)[0] == "got\n"
    assert process.returncode == 5
    if how == "exec":
        oci("delete", "--force", "b")


@pytest.mark.parametrize("how", [(), ("--all",)])
def test_what_is_paused_can_be_killed(oci: Runtime, how: tuple[str, ...]) -> None:
    oci.shell("sleep 1000")
    oci("run", "--detach", "a")
    oci("pause", "a")
    oci("kill", *how, "a", "KILL")
    until(lambda: oci.state("a")["status"] == "stopped", 10)
    oci("delete", "a")


def test_what_is_paused_stays_so_with_another_signal(oci: Runtime) -> None:
    oci.shell("sleep 1000")
    oci("run", "--detach", "a")
    oci("pause", "a")
    oci("kill", "a", "TERM")
    assert oci.state("a")["status"] == "paused"
    oci("delete", "--force", "a")


def test_several_are_deleted_and_each_that_cannot_be_is_named(oci: Runtime) -> None:
    oci.shell("sleep 1000")
    config = oci.config()
    cgroup = config["linux"]["cgroupsPath"]
    for name in "abc":
        config["linux"]["cgroupsPath"] = f"{cgroup}-{name}"
        oci.configure(config)
        oci("create", name)
    done = oci("delete", "a", "nobody", "b", check=False)
    assert done.returncode == 1 and all(f"container {name}" in done.stderr for name in ("a", "nobody", "b"))
    oci("delete", "--force", "a", "nobody", "b", "c")
    assert oci("list", "--quiet").stdout == ""
    assert not Cgroup(f"{cgroup.strip('/')}-a", all_hierarchies()).exists()


def test_the_configuration_may_have_another_name(oci: Runtime, tmp_path: Path) -> None:
    """As crun's --config: from the bundle on."""
    oci.shell("echo other")
    (oci.bundle / "config.json").rename(oci.bundle / "other.json")
    for name in ("other.json", str(oci.bundle / "other.json")):
        assert oci("run", "--config", name, "--no-subreaper", "a").stdout == "other\n"
    (oci.bundle / "other.json").rename(oci.bundle / "config.json")
    oci.shell("echo own")
    assert oci("run", "a").stdout == "own\n"
