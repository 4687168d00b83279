"""Planners that are stuck, at a limit, of another version or somebody else's, and requests that are none: a command
does without such a planner, or says what is the matter."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from runtime.cgroups.placing import all_hierarchies
from tests.runtime.planner_host import Impostor, PlannerHost
from tests.waiting import until

pytestmark = pytest.mark.root

NOBODY = 65534
MAGIC = b"TBASK\x01\n\0"
# A command that does without a planner that does not answer does so within this.
PATIENCE_S = 12.0


@pytest.mark.parametrize("left", range(7))
@pytest.mark.parametrize("what", ["pages", "inodes"])
def test_a_full_disk_under_the_state_directory(host: PlannerHost, what: str, left: int) -> None:
    """One that takes so many pages, or files, more: a container is made, or nothing of it is left."""
    host.oci.root.mkdir()
    host.host.run("mount", "-t", "tmpfs", "-o", "size=128k,nr_inodes=16,mode=700", "state", str(host.oci.root))
    inside = Path(f"/proc/{host.host.pid}/root{host.oci.root}")
    filler = inside / "@filler"
    filler.mkdir()
    if what == "pages":
        (filler / "0").write_bytes(b"x" * ((128 << 10) - 4096 * left))
    else:
        for number in range(16 - 2 - left):  # without the root's and the directory's
            (filler / str(number)).touch()
    for _ in range(3):  # nothing is used up
        done = host.oci("create", "a", check=False)
        if done.returncode == 0:
            host.oci("delete", "--force", "a")
        else:
            assert "No space left on device" in done.stderr and "Traceback" not in done.stderr
        assert [path.name for path in inside.iterdir() if not path.name.startswith("@")] == []
    shutil.rmtree(filler)
    host.live()
    host.host.run("umount", "--lazy", str(host.oci.root))
    assert not host.cgroup().exists()


def test_a_planner_that_cannot_listen(host: PlannerHost) -> None:
    host.host.run("mount", "-t", "tmpfs", "-o", "ro", "full", str(Path("/run/testbed-runtime-planner")))
    host.live()
    assert not host.sockets()


def closes(client: socket.socket) -> None:
    client.close()


def is_silent(client: socket.socket) -> None:
    time.sleep(PATIENCE_S)


def speaks_another_language(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def answers(*numbers: int, body: bytes = b"") -> Callable[[socket.socket], None]:
    """An answer's header, and what comes after it: the sizes of plan and arguments, whether it is the last, status."""

    def answer(client: socket.socket) -> None:
        client.sendall(struct.pack("<4I", *numbers) + body)

    return answer


def trickles(client: socket.socket) -> None:
    for _ in range(40):
        client.sendall(b"\1")
        time.sleep(0.2)


ANSWERS: dict[str, Callable[[socket.socket], None]] = {
    "closes": closes,
    "is silent": is_silent,
    "another language": speaks_another_language,
    "half a header": lambda client: client.sendall(b"\1\0\0"),
    "half a plan": answers(1000, 0, 1, 0, body=b"x" * 100),
    "no plan": answers(16, 0, 1, 0, body=b"x" * 16),
    "a plan of 4 GiB": answers(0xFFFFFFFF, 0, 1, 0),
    "sizes whose sum overflows": answers(0xFFFFFFF0, 0x20, 1, 0),
    "trickles": trickles,
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_planner_that_is_none(host: PlannerHost, answer: str) -> None:
    """One of another version, say, at the same place: nothing that it answers is done, and another one is asked."""
    with Impostor(host, ANSWERS[answer]) as impostor:
        began = time.monotonic()
        host.oci("create", "a")
        assert time.monotonic() - began < PATIENCE_S
        assert impostor.heard
    assert host.oci.state("a")["status"] == "created"
    host.clean()


def test_a_planner_of_another_version_is_not_asked(host: PlannerHost) -> None:
    """Its socket has another name."""
    host.warm()
    (path,) = host.sockets()
    with Impostor(host, closes) as impostor:
        other = impostor.path.with_name("0.0.1" + path.name.lstrip("0123456789.+abcdefrv"))
        impostor.path.rename(other)
        host.live()
        assert not any(impostor.heard)
        other.rename(impostor.path)


def test_a_planner_of_another_user_is_told_nothing(host: PlannerHost) -> None:
    with Impostor(host, closes, user=NOBODY) as impostor:
        host.live()
    assert not any(impostor.heard)


@pytest.mark.parametrize("fault", ["chown", "chmod"])
def test_a_directory_that_others_can_write_to_is_not_used(host: PlannerHost, fault: str) -> None:
    with Impostor(host, closes) as impostor:
        if fault == "chown":
            os.chown(host.directory, NOBODY, NOBODY)
        else:
            host.directory.chmod(0o777)
        host.live()
        assert not any(impostor.heard)
        os.chown(host.directory, 0, 0)
        host.directory.chmod(0o700)


def test_a_directory_that_is_a_link_is_not_used(host: PlannerHost, tmp_path: Path) -> None:
    host.host.run("umount", "--lazy", "/run/testbed-runtime-planner")
    host.host.run("mount", "-t", "tmpfs", "run", "/run")
    (tmp_path / "elsewhere").mkdir()
    (Path(f"/proc/{host.host.pid}/root/run") / "testbed-runtime-planner").symlink_to(tmp_path / "elsewhere")
    host.live()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_planner_at_its_descriptor_limit(host: PlannerHost) -> None:
    planner = host.warm()
    descriptors = Path(f"/proc/{planner}/fd")
    open_ones = len(list(descriptors.iterdir()))
    hard = resource.prlimit(planner, resource.RLIMIT_NOFILE)[1]
    for spare in range(6):
        with suppress(ProcessLookupError):  # one that refuses whoever asks may be replaced at any time
            resource.prlimit(planner, resource.RLIMIT_NOFILE, (open_ones + spare, hard))
        host.live()
    if host.planners() == [planner]:
        resource.prlimit(planner, resource.RLIMIT_NOFILE, (hard, hard))
    host.live()
    until(lambda: len(host.planners()) == 1, 10, host.planners)


def test_a_planner_that_may_start_no_thread(host: PlannerHost, run_name: str) -> None:
    """Clients that it has no thread for wait, or do without; it is well when they have gone."""
    pids = all_hierarchies().mount_of("pids")
    assert pids
    planner, limited = host.warm(), pids / run_name / "threads"
    limited.mkdir(parents=True)
    (limited / "cgroup.procs").write_text(str(planner))
    (limited / "pids.max").write_text((limited / "pids.current").read_text())
    idle = [host.connect() for _ in range(5)]
    host.oci("list")
    for client in idle:
        client.close()
    host.live()
    (limited / "pids.max").write_text("max")
    assert len(host.planners()) == 1
    host.end()
    until(lambda: not (limited / "cgroup.procs").read_text())
    limited.rmdir()


def test_a_planner_with_clients_that_say_nothing(host: PlannerHost) -> None:
    """Whoever connects and waits does not keep others waiting, however many do."""
    host.warm()
    idle = [host.connect() for _ in range(20)]
    began = time.monotonic()
    host.live()
    assert time.monotonic() - began < PATIENCE_S
    for client in idle:
        client.close()


@pytest.mark.parametrize("size", [10 << 20, 15 << 20])
def test_a_request_of_megabytes(host: PlannerHost, size: int) -> None:
    """No command line is that long; the planner hears it to its end, or does not, and is there for the next."""
    planner = host.warm()
    body = b"list\0" + b"x" * (size - 6) + b"\0"
    with host.connect() as client:
        client.settimeout(10)
        try:
            client.sendall(MAGIC + struct.pack("<4I", 24 + len(body), 2, 0o22, 0) + body)
            client.recv(1 << 16)
        except OSError:
            pass
    host.live()
    assert host.planners() == [planner]


@pytest.mark.parametrize("claim", [0, 1, 23, 1 << 24, 0xFFFFFFFF])
def test_a_request_that_is_not_as_long_as_it_says(host: PlannerHost, claim: int) -> None:
    planner = host.warm()
    with host.connect() as client, host.connect() as other:
        client.sendall(MAGIC + struct.pack("<4I", claim, 0xFFFFFFFF, 0o22, 0) + b"list\0")
        other.sendall(MAGIC + struct.pack("<4I", claim, 1, 0o22, 0))
        other.shutdown(socket.SHUT_WR)
        host.live()
    host.live()
    assert host.planners() == [planner]


@pytest.mark.parametrize("size", [3 << 20, 10 << 20])
def test_a_configuration_of_megabytes(host: PlannerHost, size: int) -> None:
    """What is larger than a configuration may be is refused in words."""
    config = host.oci.config()
    config["annotations"] = {f"name-{number}": "x" * 1000 for number in range(size // 1024)}
    host.oci.configure(config)
    planner = host.warm()
    if size < 4 << 20:
        host.live()
    else:
        assert "config.json: larger than 4194304 bytes" in host.oci("create", "a", check=False).stderr
    assert host.planners() == [planner]


def with_a_large_stack() -> None:
    """Let a command have 6 MB of arguments and environment, the most that the kernel allows: by default it is 2 MB."""
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    resource.setrlimit(resource.RLIMIT_STACK, (32 << 20 if hard == resource.RLIM_INFINITY else hard, hard))


@pytest.mark.parametrize("warm", [True, False])
def test_an_environment_of_megabytes(host: PlannerHost, warm: bool) -> None:
    if warm:
        host.warm()
    environment = {**os.environ, **{f"NAME_{number}": "x" * 100_000 for number in range(50)}}
    host.oci("create", "a", env=environment, preexec_fn=with_a_large_stack)
    host.clean()


@pytest.mark.parametrize("long", [False, True])
def test_a_stuck_planner(host: PlannerHost, long: bool) -> None:
    """Commands do without it, with however much they have to say; and when it goes on, it does nothing of what it was
    asked."""
    marker = host.oci.bundle / "hooks"
    config = host.oci.config()
    script = f"echo x >> {marker}"
    config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    host.oci.configure(config)
    more = {f"NAME_{number}": "x" * 100_000 for number in range(15)} if long else {}
    planner = host.warm()
    os.kill(planner, signal.SIGSTOP)
    began = time.monotonic()
    host.oci("create", "a", env={**os.environ, **more})
    assert time.monotonic() - began < PATIENCE_S
    os.kill(planner, signal.SIGCONT)
    time.sleep(0.5)
    assert marker.read_text() == "x\n"
    host.clean()
    host.live()
    until(lambda: len(host.planners()) == 1, 10, host.planners)


def test_a_stuck_planner_is_not_waited_for_again_and_again(host: PlannerHost) -> None:
    planner = host.warm()
    os.kill(planner, signal.SIGSTOP)
    host.oci("list")
    began = time.monotonic()
    host.live()
    assert time.monotonic() - began < PATIENCE_S / 2
    os.kill(planner, signal.SIGKILL)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("warm", [True, False])
def test_a_caller_with_closed_streams(host: PlannerHost, closed: str, warm: bool) -> None:
    if warm:
        host.warm()
    words = host.oci.command("list")
    done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *words], cwd=host.oci.bundle, timeout=30, check=False)
    assert done.returncode == 0 or ">&-" in closed.split()
    assert host.warm()
