"""Commands in the services of a project that runs in virtual machines: its holder, which has the machines' ports, takes
them from whoever connects to a socket in the project's directory.

What goes through a connection are the frames of one program (runtime.launcher.frames), but that START holds
a ``Request``, and FAILED a ``Refusal``. Whoever closes the connection before the end has the program killed.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from msgspec import DecodeError, Struct, json

from runtime.errors import TestbedError, WorkloadError
from runtime.launcher import StepError, frames
from runtime.plan.steps import CheckExecutable, Exec, Plan
from runtime.spec import Process
from testbed.qemu.port import Port, Reader, pack, read_end

SOCKET = "commands"
MOST_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16
_MOST_CONNECTIONS = 64
# What a client passes on to the guest as it is.
_PASSED = (frames.INPUT, frames.TAKEN, frames.SIZE)


class Request(Struct, frozen=True):
    """A program to execute in a ``service``; with a ``size``, rows and columns, in a terminal of its own."""

    service: str
    process: Process
    size: tuple[int, int] | None = None


class Refusal(Struct, frozen=True):
    """Why there is no program, or no end of it; ``errno`` is what the kernel said of the command itself, 0 when it was
    not about that."""

    message: str
    hint: str = ""
    errno: int = 0


# Finds the port of the guest in which a request's service runs, and makes the plan of it.
Reach = Callable[[Request], tuple[Port, Plan]]


class CommandServer:
    """A context manager: within, whoever connects to ``path`` has a program executed where ``reach`` says."""

    def __init__(self, path: Path, reach: Reach) -> None:
        self._path, self._reach = path, reach
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._places = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._connections: set[socket.socket] = set()
        self._changing = threading.Lock()
        self._closed = False

    def __enter__(self) -> CommandServer:
        self._listening.bind(str(self._path))
        self._path.chmod(0o600)
        self._listening.listen()
        threading.Thread(target=self._accept, name="commands", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changing:
            self._closed = True
            open_ones = list(self._connections)
        for one in (self._listening, *open_ones):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._listening.accept()
            except OSError:  # closed
                return
            if not self._places.acquire(blocking=False):
                connection.close()
                continue
            with self._changing:
                self._connections.add(connection)
            threading.Thread(target=self._attend, args=(connection,), name="command", daemon=True).start()

    def _attend(self, connection: socket.socket) -> None:
        try:
            with connection, suppress(OSError, ValueError):
                self._serve(connection)
        finally:
            with self._changing:
                self._connections.discard(connection)
            self._places.release()

    def _serve(self, connection: socket.socket) -> None:
        received = Received(connection)
        _, kind, content = received.next()
        if kind != frames.START:
            return
        try:
            port, plan = self._reach(json.decode(content, type=Request))
            number = port.begin(plan, _Passing(connection, plan))
        except DecodeError as error:
            connection.sendall(pack(0, frames.FAILED, json.encode(Refusal(f"what was asked for: {error}"))))
            return
        except TestbedError as error:
            connection.sendall(pack(0, frames.FAILED, json.encode(_refuse(error))))
            return
        try:
            while True:
                _, kind, content = received.next()
                if kind in _PASSED and len(content) <= frames.PIECE_BYTES:
                    port.send(number, kind, content)
        except (OSError, ValueError, WorkloadError):
            pass  # nobody waits any more
        finally:
            port.forget(number)


class _Passing:
    """Passes a program's frames on to a connection, without waiting: of one that has room for all that may be under
    way, whoever lets it overflow breaks the rules."""

    def __init__(self, connection: socket.socket, plan: Plan) -> None:
        self._connection, self._plan = connection, plan
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * frames.CREDIT_BYTES)

    def __call__(self, number: int, kind: int, content: bytes) -> None:
        if kind in (frames.FAILED, frames.ENDED):
            try:
                read_end(self._plan, kind, content)
            except TestbedError as error:
                kind, content = frames.FAILED, json.encode(_refuse(error))
        whole = pack(0, kind, content)
        with suppress(OSError):
            try:
                complete = self._connection.send(whole, socket.MSG_DONTWAIT) == len(whole)
            except BlockingIOError:
                complete = False
            if not complete:
                self._connection.shutdown(socket.SHUT_RDWR)


def _refuse(error: TestbedError) -> Refusal:
    if isinstance(error, StepError):
        return Refusal(error.message, error.hint, about_command(error))
    return Refusal(error.message, error.hint)


def about_command(error: StepError) -> int:
    """Return the errno of a step that failed at the command itself; 0 when another one failed."""
    return error.errno if isinstance(error.failed, CheckExecutable | Exec) else 0


class Received:
    """The frames that come through a connection, one after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = Reader(MOST_BYTES)
        self._frames: list[tuple[int, int, bytes]] = []

    def next(self) -> tuple[int, int, bytes]:
        """Return the next one. Raises OSError or ValueError when none comes."""
        while not self._frames:
            data = self._connection.recv(_CHUNK_BYTES)
            if not data:
                raise ConnectionError("closed")
            self._frames = self._reader.feed(data)
        return self._frames.pop(0)

    @property
    def pending(self) -> bool:
        """Whether one has come already."""
        return bool(self._frames)
