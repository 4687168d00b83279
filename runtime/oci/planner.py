"""The planner: an interpreter that stays for a while, for what takes it longest is to start.

A client that finds none starts one (launcher/client/planner.c), which serves that call and then listens for others. It
has nothing of its first caller's, and keeps nothing of any container: whoever kills it loses nothing. It serves its own
user only, whose clients see the same namespaces as it does and are of the same version.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from runtime.errors import TestbedError, in_words
from runtime.oci.caller import Caller, CallerGone, receive_request
from runtime.oci.cli import serve

DIRECTORY = "testbed-runtime-planner"
CGROUP = "testbed-runtime-planner"
_IDLE_S = 60.0
_LONGEST_IDLE_S = 86400.0
_TICK_S = 1.0
_SPARE_THREADS = 2
_PEER = struct.Struct("=iII")
# How systemd passes a socket on (sd_listen_fds(3)).
_FIRST_PASSED = 3


def idle_s(text: str) -> float:
    """How long a planner stays without being asked, from TESTBED_PLANNER: seconds, or ``off`` for not at all."""
    if text == "off":
        return 0.0
    with suppress(ValueError):
        if 0 <= (seconds := float(text)) <= _LONGEST_IDLE_S:
            return seconds
    return _IDLE_S


def answer(connection: socket.socket) -> None:
    """Serve one client to its end; what goes wrong with it is its own affair."""
    with connection:
        pid, user, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if user != os.geteuid():
            return
        with suppress(CallerGone):
            caller = Caller(connection, receive_request(connection, pid))
            try:
                serve(caller)
            except CallerGone:
                raise
            except BaseException as error:
                _tell_fault(caller, error)


def _tell_fault(caller: Caller, error: BaseException) -> None:
    """A fault of ours: say where it is, and end the client."""
    import traceback

    frame = traceback.extract_tb(error.__traceback__)[-1]
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, (TestbedError, OSError)):
        words = in_words(error)
    if not caller.ended:
        caller.say(2, f"error: internal: {words} ({os.path.basename(frame.filename)}:{frame.lineno})\n")
        caller.finish(1)


class Sources:
    """The files that this process was loaded from: when one changes, what is loaded later no longer fits."""

    def __init__(self) -> None:
        here = Path(__file__).resolve().parent.parent
        self._paths = [str(path) for path in here.rglob("*.py")]
        self._before = self._looks()

    def _looks(self) -> list[tuple[int, int]]:
        with suppress(OSError):
            return [(found.st_mtime_ns, found.st_ino) for found in map(os.stat, self._paths)]
        return []

    def changed(self) -> bool:
        """Whether one is another than it was."""
        return self._looks() != self._before


class Planner:
    """Threads that accept clients at one socket, and go when nobody comes."""

    def __init__(self, listening: socket.socket, idle_s: float) -> None:
        self._listening, self._idle_s = listening, idle_s
        self._sources = Sources()
        self._lock = threading.Lock()
        self._waiting = self._busy = 0
        self._last = time.monotonic()
        self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        listening.setblocking(False)

    def stay(self) -> None:
        """Serve clients until none has come for the time, or the sources have changed."""
        self._more_threads()
        while True:
            time.sleep(_TICK_S)
            with self._lock:
                idle = time.monotonic() - self._last
                if self._busy == 0 and (idle > self._idle_s or self._sources.changed()):
                    return
                if self._sources.changed():
                    self._listening.close()  # those that are served go on
            if self._busy == 0 and idle > _TICK_S:
                gc.collect()

    def _more_threads(self) -> None:
        with self._lock:
            wanted = _SPARE_THREADS - self._waiting
            self._waiting += wanted
        for _ in range(wanted):
            threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection = self._next()
            with self._lock:
                self._waiting -= 1
                if connection is not None:
                    self._busy += 1
                    self._last = time.monotonic()
            if connection is None:
                return
            if self._waiting == 0:
                self._more_threads()
            try:
                answer(connection)
            finally:
                with self._lock:
                    self._busy -= 1
                    self._last = time.monotonic()
                    enough = self._waiting >= _SPARE_THREADS
                    self._waiting += not enough
            if enough:
                return

    def _next(self) -> socket.socket | None:
        poll = select.poll()
        with suppress(OSError, ValueError):
            poll.register(self._listening, select.POLLIN)
            while self._listening.fileno() >= 0:
                if not poll.poll(_TICK_S * 1000):
                    continue
                try:
                    connection = self._listening.accept()[0]
                except BlockingIOError:  # another thread has it
                    continue
                except OSError as error:
                    self._refuse(error)
                    continue
                connection.setblocking(True)
                return connection
        return None

    def _refuse(self, error: OSError) -> None:
        """Without a descriptor to spare the client is sent away, to do without."""
        with self._lock, suppress(OSError):
            os.close(self._reserve)
            with suppress(OSError):
                self._listening.accept()[0].close()
            self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def own_directory(candidates: Sequence[str]) -> Path | None:
    """The first of the directories that is, or becomes, ours alone."""
    for path in map(Path, candidates):
        with suppress(OSError):
            if (
                path.parent.name == f"testbed-runtime-{os.geteuid()}"
            ):  # in /tmp, where anybody may have made it before us
                path.parent.mkdir(mode=0o700, exist_ok=True)
                if not _is_ours(path.parent):
                    continue
            path.mkdir(mode=0o700, exist_ok=True)
            if _is_ours(path):
                return path
    return None


def _is_ours(path: Path) -> bool:
    found = os.lstat(path)
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022 and (found.st_mode & 0o170000) == 0o040000


def listen(directory: Path, name: str) -> socket.socket | None:
    """Listen there, unless somebody does. A socket that nobody listens at any more is replaced."""
    import fcntl

    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        held = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            path = f"/proc/self/fd/{held}/{name}"
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
                other.setblocking(False)
                try:
                    other.connect(path)
                    return None
                except BlockingIOError:
                    return None
                except OSError:
                    with suppress(FileNotFoundError):
                        os.unlink(path)
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listening.bind(path)
            listening.listen(128)
            return listening
        finally:
            os.close(held)
    finally:
        os.close(lock)


def detach() -> None:
    """Leave what is still the caller's: its cgroups, where we may."""
    from runtime.cgroups import hierarchies

    found = hierarchies()
    for mount in found.used:
        with suppress(OSError):
            directory = mount / CGROUP
            directory.mkdir(exist_ok=True)
            (directory / "cgroup.procs").write_text("0")


def _stay(listening: socket.socket, path: Path | None, seconds: float) -> None:
    import runtime.oci.execution
    import runtime.oci.queries  # noqa: F401  what calls need is there before they come

    gc.collect()
    gc.freeze()
    planner = Planner(listening, seconds)
    planner.stay()
    if path is not None:
        path.unlink(missing_ok=True)


def main(arguments: Sequence[str]) -> int:
    """Serve the client at descriptor 3, then those that come: SECONDS NAME DIRECTORY...; or, activated by systemd,
    those that come at its socket: SECONDS."""
    seconds = idle_s(arguments[0])
    if len(arguments) == 1:
        if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
            print("error: planner: no socket was passed on (sd_listen_fds(3))", file=sys.stderr)
            return 1
        _stay(socket.socket(fileno=_FIRST_PASSED), None, seconds)
        return 0
    os.set_inheritable(_FIRST_PASSED, False)
    first = socket.socket(fileno=_FIRST_PASSED)
    answer(first)
    directory = own_directory(arguments[2:]) if seconds else None
    listening = listen(directory, arguments[1]) if directory else None
    if directory is None or listening is None:
        return 0
    detach()
    _stay(listening, directory / arguments[1], seconds)
    return 0
