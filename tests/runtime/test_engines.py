"""podman and buildah, as Debian has them, with this runtime in the place of theirs."""

from __future__ import annotations

import json
import os
import pty
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from runtime.cgroups import hierarchies
from tests.runtime.command_line import said_on
from tests.runtime.shared_host import shared_host

pytestmark = [pytest.mark.root, pytest.mark.skipif(not shutil.which("podman"), reason="podman is not installed")]

REPOSITORY = Path(__file__).resolve().parents[2]
# The host may not allow higher limits, and nothing of the tests goes to the system's journal.
# Debian 13's podman gives fewer capabilities than Debian 12's, so they are said.
CONFIGURATION = """[containers]
default_ulimits = []
default_capabilities = ["AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
    "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class Podman(Struct):
    """podman with storage, state and settings of its own, below ``directory``."""

    directory: Path
    rootfs: Path

    def options(self) -> list[str]:
        paths = [f"--{name}={self.directory / name}" for name in ("root", "runroot", "tmpdir")]
        return [
            *paths,
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            f"--runtime={self.directory}/testbed-runtime",
        ]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "CONTAINERS_CONF": str(self.directory / "containers.conf")}

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["podman", *self.options(), *arguments], capture_output=True, text=True, timeout=60, env=self.environment()
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """``podman run`` of the root file system; arguments before ``--`` are podman's."""
        at = arguments.index("--")
        own, command = arguments[:at], arguments[at + 1 :]
        return self("run", "--network=none", *own, "--rootfs", str(self.rootfs), *command, check=check)


@pytest.fixture
def podman(busybox_layer: Path) -> Iterator[Podman]:
    # podman takes no long paths, and the root of a user namespace must be able to reach what is here
    with tempfile.TemporaryDirectory(prefix="engine-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o711)
        (directory / "containers.conf").write_text(CONFIGURATION)
        script = directory / "testbed-runtime"
        script.write_text(f'#!/bin/sh\nexec {REPOSITORY}/.venv/bin/testbed-runtime --root {directory}/state "$@"\n')
        script.chmod(0o755)
        for empty in ("tmp", "proc", "sys", "dev", "etc", "run", "root"):  # a mapped root may not make them
            (busybox_layer / empty).mkdir(exist_ok=True)
        shutil.copytree(busybox_layer, directory / "rootfs", symlinks=True)
        found = Podman(directory, directory / "rootfs")
        yield found
        left = found("ps", "--all", "--quiet").stdout.split()
        for container in left:
            found("rm", "--force", "--time=0", container)
        for storage in ("root", "broot"):
            subprocess.run(["umount", directory / storage / "vfs"], capture_output=True)
        assert not left
        state = directory / "state"
        assert not state.exists() or all(path.name.startswith("@") for path in state.iterdir())


def test_run_with_seccomp_and_capabilities(podman: Podman) -> None:
    done = podman.run("--rm", "--", "sh", "-c", "grep -E 'Seccomp:|CapEff' /proc/self/status; exit 5", check=False)
    assert done.returncode == 5 and done.stdout.split() == ["CapEff:", "00000000a80425fb", "Seccomp:", "2"]


@pytest.mark.parametrize("call", ["mount -t tmpfs x /tmp", "unshare -m true", "chroot / mount -t proc x /tmp"])
def test_the_default_profile_forbids(podman: Podman, call: str) -> None:
    done = podman.run("--rm", "--cap-add=SYS_CHROOT", "--", "busybox", *call.split(), check=False)
    assert done.returncode == 1 and any(word in done.stderr.lower() for word in ("not permitted", "permission denied"))


def test_the_life_of_a_detached_container(podman: Podman) -> None:
    podman.run("--detach", "--name=a", "--memory=64m", "--cpus=0.5", "--pids-limit=20", "--", "sleep", "1000")
    assert podman("exec", "a", "cat", "/proc/1/cmdline").stdout == "sleep\x001000\x00"
    done = podman("exec", "--user=1000:1000", "--env=A=b", "--workdir=/tmp", "a", "sh", "-c", "id -u; echo $A; pwd")
    assert done.stdout.split() == ["1000", "b", "/tmp"]
    assert podman("exec", "a", "nonsense", check=False).returncode == 127
    if memory := hierarchies().v1.get("memory"):
        pid = int(podman("inspect", "--format", "{{.State.Pid}}", "a").stdout)
        line = next(x for x in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if ":memory:" in x)
        directory = memory / line.rpartition(":")[2].lstrip("/")
        assert (directory / "memory.limit_in_bytes").read_text() == f"{64 << 20}\n"
    podman("pause", "a")
    assert podman("inspect", "--format", "{{.State.Status}}", "a").stdout == "paused\n"
    podman("unpause", "a")
    (stats,) = json.loads(podman("stats", "--no-stream", "--format=json", "a").stdout)
    assert stats["pids"] == "1"
    podman("stop", "--time=0", "a")
    podman("rm", "a")


def test_one_task_is_enough(podman: Podman) -> None:
    assert podman.run("--rm", "--pids-limit=1", "--", "cat", "/proc/sys/kernel/hostname").stdout


def test_hooks_of_the_engine(podman: Podman, tmp_path: Path) -> None:
    """podman's own hook files (oci-hooks(5)), with no environment of their own; the last kind podman runs itself."""
    script = f"{{ pwd; echo $PATH; cat; }} > {tmp_path}/$0"
    for stage in ("createRuntime", "createContainer", "poststart"):
        hook = {"path": "/bin/sh", "args": ["sh", "-c", script, stage]}
        document = {"version": "1.0.0", "hook": hook, "when": {"always": True}, "stages": [stage]}
        (tmp_path / f"{stage}.json").write_text(json.dumps(document))
    podman(f"--hooks-dir={tmp_path}", "run", "--rm", "--network=none", "--rootfs", str(podman.rootfs), "true")
    for stage, status in (("createRuntime", "creating"), ("createContainer", "creating"), ("poststart", "running")):
        directory, path, state = (tmp_path / stage).read_text().split("\n", 2)
        found = json.loads(state)
        assert path and found["status"] == status
        assert directory == (str(podman.rootfs) if stage == "createContainer" else found["bundle"])


def test_a_container_that_says_that_it_is_ready(podman: Podman) -> None:
    """podman passes the runtime a service manager's socket, or makes one itself: the container finds it where it is
    told, either way."""
    path = podman.directory / "manager"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        command = [*podman.options(), "run", "--rm", "--network=none", "--sdnotify=container", "--rootfs"]
        done = subprocess.run(
            ["podman", *command, str(podman.rootfs), "sh", "-c", "test -S $NOTIFY_SOCKET && echo there"],
            env={**podman.environment(), "NOTIFY_SOCKET": str(path)}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert (done.stdout, done.returncode) == ("there\n", 0), done.stderr


def test_read_only_and_volumes(podman: Podman, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    script = "echo x > /data/y; echo x > /z"
    done = podman.run("--rm", "--read-only", f"--volume={volume}:/data", "--", "sh", "-c", script, check=False)
    assert "Read-only file system" in done.stderr and (volume / "y").read_text() == "x\n"
    done = podman.run("--rm", f"--volume={volume}:/data:ro", "--", "sh", "-c", "echo x > /data/z", check=False)
    assert "Read-only file system" in done.stderr


def test_a_shared_volume_reaches_the_host(podman: Podman) -> None:
    volume = podman.directory / "volume"
    (volume / "below").mkdir(parents=True)
    configuration = f"CONTAINERS_CONF={podman.directory}/containers.conf"
    shown = ["--rm", "--network=none", "--privileged", f"--volume={volume}:/data:shared", "--rootfs", podman.rootfs]
    script = "mount -t tmpfs made-inside /data/below; grep ' /data ' /proc/self/mountinfo"
    with shared_host() as host:
        run = map(str, ["podman", *podman.options(), "run", *shown, "sh", "-c", script])
        assert " shared:" in host.run("env", configuration, *run)
        assert [line for line in host.mounts() if "made-inside" in line and f" {volume}/below " in line]
        assert not [line for line in host.mounts() if f" {podman.rootfs} " in line]


def test_a_user_namespace(podman: Podman) -> None:
    subprocess.run(["chown", "-R", "100000:100000", podman.rootfs], check=True)
    done = podman.run("--rm", "--uidmap=0:100000:65536", "--", "sh", "-c", "id -u; cat /proc/self/uid_map")
    assert done.stdout.split() == ["0", "0", "100000", "65536"]


@pytest.mark.parametrize(("command", "status"), [("nonsense", 127), ("/tmp", 126), ("/nowhere", 127)])
def test_what_cannot_be_executed_has_its_own_status(podman: Podman, command: str, status: int) -> None:
    assert podman.run("--rm", "--", command, check=False).returncode == status


def test_a_terminal(podman: Podman) -> None:
    command = [
        "run",
        "--rm",
        "--network=none",
        "--tty",
        "--rootfs",
        str(podman.rootfs),
        "sh",
        "-c",
        "busybox tty; exit 3",
    ]
    pid, master = pty.fork()
    if pid == 0:
        os.execvpe("podman", ["podman", *podman.options(), *command], podman.environment())
    said = said_on(master)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3 and b"/dev/pts/0" in said


@pytest.mark.skipif(not shutil.which("buildah"), reason="buildah is not installed")
def test_buildah_runs_a_step(podman: Podman) -> None:
    def buildah(*arguments: str) -> str:
        paths = [f"--root={podman.directory}/broot", f"--runroot={podman.directory}/brunroot", "--storage-driver=vfs"]
        done = subprocess.run(
            ["buildah", *paths, *arguments], capture_output=True, text=True, timeout=60, env=podman.environment()
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    # Else Debian 13's asks for limits that this host may not allow.
    name = buildah("from", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "scratch")
    try:
        mounted = Path(buildah("mount", name))
        shutil.copytree(podman.rootfs, mounted, symlinks=True, dirs_exist_ok=True)
        runtime = f"--runtime={podman.directory}/testbed-runtime"
        said = buildah("run", "--isolation=oci", runtime, "--network=none", name, "sh", "-c", "id -u; echo hi > /made")
        assert said.split()[-1] == "0" and (mounted / "made").read_text() == "hi\n"
    finally:
        buildah("rm", name)
