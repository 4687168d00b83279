"""A host whose planners are a test's own: a mount namespace in which /run/testbed-runtime-planner is empty at first."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

from msgspec import Struct

from tests.runtime.command_line import LOOKS, Runtime
from tests.runtime.shared_host import SharedHost, shared_host
from tests.waiting import until

DIRECTORY = "/run/testbed-runtime-planner"
WORD = b"planner"
# What a planner does with nobody to serve.
WAITS = ("clock_nanosleep", "restart_syscall")


class PlannerHost(Struct, frozen=True):
    """The command line in that namespace, and what it leaves there."""

    host: SharedHost
    oci: Runtime

    @property
    def directory(self) -> Path:
        """Where its planners listen, as it is reached from here."""
        return Path(f"/proc/{self.host.pid}/root{DIRECTORY}")

    def sockets(self) -> list[Path]:
        """What is in that directory and is a socket."""
        return [path for path in self.directory.glob("*") if path.is_socket()]

    def planners(self) -> list[int]:
        """The processes that are planners and see this host's mounts."""
        mine = os.readlink(f"/proc/{self.host.pid}/ns/mnt")
        found = []
        for process in Path("/proc").iterdir():
            with suppress(OSError):
                if process.name.isdigit() and os.readlink(process / "ns/mnt") == mine:
                    words = (process / "cmdline").read_bytes().split(b"\0")
                    if WORD in words or any(word.endswith(b"runtime.oci.planner") for word in words):
                        found.append(int(process.name))
        return found

    def warm(self) -> int:
        """The planner that is there, after a command that started it if there was none."""
        self.oci("list")
        until(self.sockets)
        (planner,) = until(self.planners)
        return planner

    def end(self) -> None:
        """Kill all planners."""
        for pid in self.planners():
            os.kill(pid, signal.SIGKILL)
        until(lambda: not self.planners())

    def connect(self) -> socket.socket:
        """A client of our own."""
        (path,) = self.sockets()
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        directory = os.open(path.parent, os.O_PATH)
        try:
            client.connect(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)
        return client

    def steps(self, planner: int, *arguments: str) -> list[tuple[str, int]]:
        """The system calls with which a planner, serving a command, hears, answers or changes something: each with how
        often its process has made it by then."""
        made: Counter[tuple[str, str]] = Counter()
        found = []
        for pid, rest in self.traced(planner, [], *arguments):
            if not re.match(r"\w+\(", rest):
                continue
            call = rest.partition("(")[0]
            made[pid, call] += 1
            if call not in (*LOOKS, *WAITS) and (call != "openat" or "O_CREAT" in rest):
                found.append((call, made[pid, call]))
        return list(dict.fromkeys(found))

    @contextmanager
    def watched(self, planner: int, options: Sequence[str]) -> Iterator[Path]:
        """While strace, with more ``options``, sees to the planner: the file in which it says what that does."""
        with tempfile.NamedTemporaryFile("r") as trace:
            command = ["strace", "-f", "-q", "-o", trace.name, *options, "-p", str(planner)]
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as strace:
                until(lambda: is_traced(planner))
                yield Path(trace.name)
                strace.terminate()

    def traced(self, planner: int, options: Sequence[str], *arguments: str) -> list[tuple[str, str]]:
        """Perform a command while strace sees to the planner: what that did, with the pid of who did it."""
        with self.watched(planner, options) as trace:
            self.oci(*arguments, check=False)
            time.sleep(0.05)  # it is done with the client a little later
            lines = [line.split(maxsplit=1) for line in trace.read_text().splitlines()]
        return [(pid, rest) for pid, rest in lines]


def is_traced(pid: int) -> bool:
    """Whether all threads of a process are, or it has ended."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return all("TracerPid:\t0" not in (thread / "status").read_text() for thread in threads)
    except (FileNotFoundError, ProcessLookupError):
        return True


@contextmanager
def planner_host(oci: Runtime) -> Iterator[PlannerHost]:
    """The host, in which nothing may be left of its planners when it goes but what is idle."""
    with shared_host() as host:
        host.run("mkdir", "--parents", DIRECTORY)
        host.run("mount", "-t", "tmpfs", "-o", "mode=700", "planners", DIRECTORY)
        oci.inside = (*host.inside[:-1], f"--wdns={oci.bundle}", "--")
        found = PlannerHost(host, oci)
        try:
            yield found
        finally:
            found.end()
            oci.inside = ()


class Impostor:
    """Listens where the planner of a host did, and does with who comes whatever a test says; ``heard`` is what was said
    to it. The ``user`` is who it says it is: the kernel tells clients who called listen(2)."""

    def __init__(self, host: PlannerHost, answer: Callable[[socket.socket], None], user: int = 0) -> None:
        host.warm()
        (self._path,) = host.sockets()
        host.end()
        self._path.unlink(missing_ok=True)
        self._answer, self._user = answer, user
        self.heard: list[bytes] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        directory = os.open(self._path.parent, os.O_PATH)
        self._listener.bind(f"/proc/self/fd/{directory}/{self._path.name}")
        os.close(directory)

    @property
    def path(self) -> Path:
        return self._path

    def __enter__(self) -> Impostor:
        os.seteuid(self._user)
        try:
            self._listener.listen()
        finally:
            os.seteuid(0)
        Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, suppress(OSError):
                client.settimeout(2)
                with suppress(TimeoutError):
                    self.heard.append(client.recv(1 << 16))
                self._answer(client)
