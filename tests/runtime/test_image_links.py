"""What an image has where the runtime writes, as full root: links to the kernel's settings and out, pipes, devices.

Each is tried for real. The host's values stay, and the container runs, or the error names the step.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime import container
from runtime.errors import TestbedError
from runtime.launcher import STATIC_BINARY
from runtime.plan import steps as s
from runtime.plan.constants import CLONE_NEWNS, CLONE_NEWUTS
from runtime.plan.encode import encode
from runtime.plan.root import HOLD_ROOT
from runtime.spec import Process, Spec
from tests.runtime.command_line import Runtime
from vm_images.plans.restored import restored_plan

pytestmark = pytest.mark.root

# Nobody's harm, should a test fail: it is read when the machine is powered off by a signal, and put back.
SETTING = Path("/proc/sys/kernel/poweroff_cmd")
OWN, MINE = "the-hosts-own", "mine\n"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host's with a file, and a setting of its kernel: both must be as they were."""
    directory = tmp_path / "victim"
    directory.mkdir()
    (directory / OWN).write_text(MINE)
    before = SETTING.read_text()
    try:
        yield directory
        assert SETTING.read_text() == before
    finally:
        if SETTING.read_text() != before:
            SETTING.write_text(before)
    assert [path.name for path in directory.iterdir()] == [OWN]
    assert (directory / OWN).read_text() == MINE
    assert str(directory) not in Path("/proc/self/mountinfo").read_text()


def _up(target: Path | str) -> str:
    return "../" * 30 + str(target).lstrip("/")


# What lies at a path of the image, given a file of the host.
KINDS: dict[str, Callable[[Path, Path], None]] = {
    "setting": lambda path, victim: path.symlink_to(SETTING),
    "setting over ..": lambda path, victim: path.symlink_to(_up(SETTING)),
    "settings": lambda path, victim: path.symlink_to(SETTING.parent),
    "absolute link": lambda path, victim: path.symlink_to(victim),
    "link over ..": lambda path, victim: path.symlink_to(_up(victim)),
    "magic link": lambda path, victim: path.symlink_to("/proc/self/root"),
    "link to a stream": lambda path, victim: path.symlink_to("/proc/self/fd/1"),
    "dangling link": lambda path, victim: path.symlink_to("/nowhere/at/all"),
    "link to itself": lambda path, victim: path.symlink_to(path.name),
    "pipe": lambda path, victim: os.mkfifo(path),
    "device": lambda path, victim: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7)),
    "disk": lambda path, victim: os.mknod(path, stat.S_IFBLK | 0o666, os.makedev(7, 255)),
    "directory": lambda path, victim: path.mkdir(),
    "hard link": lambda path, victim: os.link(path.parent / "other", path),
    "file": lambda path, victim: path.touch(),
}


def put(kind: str, path: Path, victim: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    (path.parent / "other").write_text(MINE)
    KINDS[kind](path, victim)


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """A start that waits for a pipe ends with an error of the test's."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"not started within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(layer: Path, cgroup: str, script: str, cwd: str = "/") -> tuple[int, str]:
    """The exit status and output of a container of the testbed's, or -1 and why it could not be started."""
    process = Process(("/bin/sh", "-c", script), cwd=cwd)
    spec = Spec(process, (str(layer),), "boxed", hosts=(("near", "10.0.0.1"),))
    with tempfile.TemporaryFile("w+") as log, at_most(10):
        try:
            status = container.run(spec, name=f"{cgroup}/c", log=log.fileno())
        except TestbedError as error:
            return -1, str(error)
        log.seek(0)
        return status, log.read()


@pytest.mark.parametrize("name", ["hosts", "hostname"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_names_host_and_neighbours_takes_their_place(
    busybox_layer: Path, cgroup_parent: str, victim: Path, name: str, kind: str
) -> None:
    """A link is replaced, as docker's and podman's mounts over it would not: they follow it inside the root."""
    put(kind, busybox_layer / "etc" / name, victim / OWN)
    done = run(busybox_layer, cgroup_parent, f"test -L /etc/{name} && echo link; cat /etc/{name} /etc/other")
    if kind == "directory":
        assert done[0] == -1 and f"to etc/{name}: Is a directory" in done[1]
    else:
        text = "boxed\n" if name == "hostname" else "127.0.0.1\tlocalhost\n10.0.0.1\tnear\n"
        assert done == (0, text + MINE)


@pytest.mark.parametrize("kind", KINDS)
def test_an_etc_that_leads_elsewhere(busybox_layer: Path, cgroup_parent: str, victim: Path, kind: str) -> None:
    put(kind, busybox_layer / "etc", victim)
    status, text = run(busybox_layer, cgroup_parent, "cat /etc/hostname")
    if kind == "directory":
        assert (status, text) == (0, "boxed\n")
    else:
        assert status == -1 and text.startswith("step") and "etc/hostname: " in text
        assert "make it a directory" in text or kind != "settings"


def test_an_etc_that_leads_to_another_directory_of_the_image(busybox_layer: Path, cgroup_parent: str) -> None:
    (busybox_layer / "usr" / "etc").mkdir(parents=True)
    (busybox_layer / "etc").symlink_to("/usr/etc")
    assert run(busybox_layer, cgroup_parent, "cat /usr/etc/hostname") == (0, "boxed\n")


@pytest.mark.parametrize("name", ["dev", "proc", "sys", "dev/null", "dev/shm", "dev/pts", "tmp"])
@pytest.mark.parametrize("kind", KINDS)
def test_where_file_systems_and_devices_go(
    busybox_layer: Path, cgroup_parent: str, victim: Path, name: str, kind: str
) -> None:
    put(kind, busybox_layer / name, victim)
    script = "echo x > /dev/null; cat /etc/hostname; (echo 1 > /proc/sys/kernel/panic) 2>&1 | grep -o Read-only"
    status, text = run(busybox_layer, cgroup_parent, script)
    assert (status, text) == (0, "boxed\nRead-only\n") or (status == -1 and text.startswith("step")), text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cwd", ["/work", "/work/below"])
def test_a_working_directory_that_leads_elsewhere(
    busybox_layer: Path, cgroup_parent: str, victim: Path, kind: str, cwd: str
) -> None:
    put(kind, busybox_layer / "work", victim)
    status, text = run(busybox_layer, cgroup_parent, "echo *; pwd; cd ..; echo *", cwd)
    assert OWN not in text and "var" not in text.split()
    assert status == 0 or (status == -1 and text.startswith("step")), text


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundles_working_directory_that_leads_elsewhere(oci: Runtime, victim: Path, kind: str) -> None:
    """What is missing of it is made, but not where a link leads over a mount: this one is a directory of the host's."""
    put(kind, oci.bundle / "rootfs" / "work", Path("/data"))
    config = oci.config()
    config["mounts"].append({"destination": "/data", "type": "bind", "source": str(victim), "options": ["bind"]})
    config["process"]["cwd"] = "/work/below"
    oci.configure(config)
    oci.shell("pwd", cwd="/work/below")
    done = oci("run", "a", check=False)
    assert (done.returncode, done.stdout) == (0, "/work/below\n") if kind == "directory" else "step" in done.stderr


@pytest.mark.parametrize("name", ["dev/console", "dev/pts", "dev/pts/ptmx"])
@pytest.mark.parametrize(
    "kind", ["setting", "link over ..", "magic link", "dangling link", "pipe", "disk", "directory"]
)
def test_where_a_bundles_terminal_is_made(oci: Runtime, victim: Path, name: str, kind: str) -> None:
    """With a /dev of the image's own, which no engine asks for; and for the terminal's own name no devpts either."""
    put(kind, oci.bundle / "rootfs" / name, victim / OWN)
    config = oci.config()
    config["mounts"] = [
        mount
        for mount in config["mounts"]
        if not mount["destination"].startswith("/dev") or (mount["type"] == "devpts" and name != "dev/pts/ptmx")
    ]
    oci.configure(config)
    oci.shell("test -t 0 && echo a terminal", terminal=True)
    command = f"cd {oci.bundle} && exec timeout 20 {' '.join(oci.command('run', 'a'))}"
    done = subprocess.run(["script", "-qec", command, "/dev/null"], capture_output=True, text=True, timeout=30)
    assert "a terminal" in done.stdout or "error: step" in done.stdout, done.stdout


@pytest.mark.parametrize("name", ["hosts", "hostname", "machine-id"])
@pytest.mark.parametrize("kind", KINDS)
def test_who_a_restored_guest_is(tmp_path: Path, victim: Path, name: str, kind: str) -> None:
    """Beside the workload that may have made of /etc what it likes; here in namespaces instead of a guest."""
    root = tmp_path / "root"
    root.mkdir()
    put(kind, root / "etc" / name, victim / OWN)
    spec = Spec(Process(("/bin/true",)), (), "restored")
    identity = [step for step in restored_plan(spec, "0" * 32, 0, b"").steps() if isinstance(step, s.Mkdir | s.Write)]
    plan = s.Plan(
        (
            s.Unshare(CLONE_NEWNS | CLONE_NEWUTS),
            s.Mount("", "/", "", 1 << 18 | 1 << 14),
            s.Chdir(str(root)),
            HOLD_ROOT,
            *identity,
            s.Exec(("/bin/true",)),
        )
    )
    (tmp_path / "p").write_bytes(encode(plan))
    done = subprocess.run([STATIC_BINARY, tmp_path / "p"], capture_output=True, text=True, timeout=20)
    if kind == "directory":
        assert done.returncode == 125 and f"write etc/{name}: EISDIR" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert not (root / "etc" / name).is_symlink() and (root / "etc" / "other").read_text() == MINE
        assert (root / "etc" / name).read_text().strip() not in ("", "mine")
