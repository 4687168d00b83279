"""What a service manager gives the runtime for the container: sockets, and an ear for that it is ready."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.oci.notify import passed_on
from tests.runtime.command_line import Runtime

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("environment", "passed"),
    [
        ({}, (0, "")),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "7"}, (2, "")),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "8"}, (0, "")),
        ({"LISTEN_FDS": "2"}, (0, "")),
        ({"LISTEN_FDS": "-2", "LISTEN_PID": "7"}, (0, "")),
        ({"LISTEN_FDS": "9999", "LISTEN_PID": "7"}, (0, "")),
        ({"NOTIFY_SOCKET": "/x"}, (0, "/x")),
    ],
)
def test_sockets_are_ours_only_with_our_number(environment: dict[str, str], passed: tuple[int, str]) -> None:
    assert passed_on(environment, 7) == passed


def activated(runtime: Runtime, *arguments: str) -> str:
    """The command as a service manager starts it: with a file as descriptor 3, and who it is for by number."""
    script = 'exec 3< "$0"; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
    command = ["sh", "-c", script, str(runtime.bundle / "socket"), *runtime.command(*arguments)]
    done = subprocess.run(command, cwd=runtime.bundle, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sockets_go_on_to_the_container(oci: Runtime) -> None:
    """As runc passes them on, each time anew, with those of --preserve-fds behind them."""
    (oci.bundle / "socket").write_text("from the manager")
    oci.shell("echo $LISTEN_FDS $LISTEN_PID $$; cat <&3")
    for arguments in (("run", "a"), ("run", "a"), ("run", "--preserve-fds", "1", "a")):
        assert activated(oci, *arguments) == "1 1 1\nfrom the manager"
    oci.shell("echo $LISTEN_FDS")
    assert oci("run", "a").stdout == "\n"


@contextmanager
def manager(path: Path) -> Iterator[list[bytes]]:
    """A service manager that listens at ``path``, and lets go of whoever waits for its having heard."""
    said: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))

        def listen() -> None:
            while (heard := socket.recv_fds(listening, 1000, 1))[0] != b"end":
                said.append(heard[0])
                for descriptor in heard[1]:
                    os.close(descriptor)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield said
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.sendto(b"end", str(path))
            thread.join()


SAY = """
import os, socket
own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
own.connect(os.environ["NOTIFY_SOCKET"])
own.send(b"STATUS=nearly\\nMAINPID=1")
own.send(b"READY=1\\nMAINPID=1")
"""


def make_sayer(oci: Runtime, more: str = "") -> None:
    """The container's program says that it is ready, with the host's interpreter."""
    config = oci.config()
    for name in ("usr", "lib", "lib64"):
        if Path(f"/{name}").is_dir():
            (oci.bundle / "rootfs" / name).mkdir(exist_ok=True)
            config["mounts"].append({"destination": f"/{name}", "source": f"/{name}", "options": ["rbind", "ro"]})
    config["process"].update(args=["/usr/bin/python3", "-c", SAY + more], terminal=False)
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    oci.configure(config)


@pytest.mark.parametrize("how", ["run", "start"])
def test_a_container_says_that_it_is_ready(oci: Runtime, tmp_path: Path, how: str) -> None:
    """The manager hears it from us, once, with the process whose end is the service's: ours, or the container's."""
    make_sayer(oci, "import time; time.sleep(0.5 if os.environ.get('RUN') else 1000)")
    path = tmp_path / "manager"
    environment = {**os.environ, "NOTIFY_SOCKET": str(path)}
    with manager(path) as said:
        if how == "run":
            config = oci.config()
            config["process"]["env"].append("RUN=1")
            oci.configure(config)
            with subprocess.Popen(oci.command("run", "a"), cwd=oci.bundle, env=environment) as process:
                process.wait(60)
            assert process.returncode == 0
            main = process.pid
        else:
            oci("create", "a", env=environment)
            oci("start", "a", env=environment)
            main = oci.state("a")["pid"]
            oci("delete", "--force", "a")
    assert said == [b"READY=1\n", f"MAINPID={main}\n".encode(), b"BARRIER=1"]


def test_nobody_waits_for_a_container_that_ends(oci: Runtime, tmp_path: Path) -> None:
    oci.shell("test -S $NOTIFY_SOCKET")
    with manager(tmp_path / "manager") as said:
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "manager")}
        oci("create", "a", env=environment)
        oci("start", "a", env=environment)
        oci("delete", "a")
        assert oci("run", "b", env=environment, check=False).returncode == 0
    assert said == []
    assert not (oci.root / "a").exists()
