"""Forwards ports of the host's loopback to services, whose network the host does not see.

The sockets that listen are made in the host's network namespace, before the lab is entered; a thread that was started
in the lab takes what comes there and connects to the service. Bytes are passed on both ways until both sides are done.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from errno import EACCES, EADDRINUSE, errorcode

from msgspec import Struct

from runtime.errors import PrerequisiteError
from testbed.projects.record import Published

LOOPBACK = "127.0.0.1"
_PIECE_BYTES = 1 << 16
_BACKLOG = 128
_LINGER_NOT = struct.pack("ii", 1, 0)
_END_S = 5.0


class Listener(Struct, frozen=True):
    """A socket that listens on the host, and the port of a service that what comes there is for."""

    listening: socket.socket
    published: Published


def listen(service: str, port: int, *, host_port: int = 0, address: str = LOOPBACK, http: bool = False) -> Listener:
    """Listen for a service's port: at ``host_port``, which must be free then; without one at the port's own number, or
    at any other when that is taken.

    Raises PrerequisiteError when the host refuses.
    """
    for wanted in (host_port,) if host_port else (port, 0):
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((address, wanted))
            listening.listen(_BACKLOG)
        except OSError as error:
            listening.close()
            if wanted and not host_port and error.errno in (EADDRINUSE, EACCES):
                continue
            reason = "it is taken" if error.errno == EADDRINUSE else error.strerror or errorcode.get(error.errno or 0)
            raise PrerequisiteError(
                f"publish port {port} of {service} at {address}:{wanted or 'any'}: {reason}",
                "end what listens there, or publish it at another port",
            ) from error
        return Listener(listening, Published(service, port, address, listening.getsockname()[1], http))
    raise AssertionError("any port was tried last")


class Forwarder:
    """A context manager: within it, what connects to the listeners is connected to the services at ``addresses``.

    To be entered in the lab's network namespace. It closes the listeners at its end.
    """

    def __init__(self, listeners: Sequence[Listener], addresses: dict[str, str]) -> None:
        self._listeners = listeners
        self._addresses = addresses
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="forwarder", daemon=True)

    def __enter__(self) -> Forwarder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_END_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        for one in self._listeners:
            one.listening.close()

    async def _serve(self) -> None:
        for one in self._listeners:
            target = self._addresses[one.published.service], one.published.port

            async def connect(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: tuple[str, int] = target
            ) -> None:
                await _pass_on(reader, writer, target)

            await asyncio.start_server(connect, sock=one.listening)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: tuple[str, int]) -> None:
    """Connect to the service and pass bytes on both ways; a client of a service that does not answer is refused."""
    try:
        theirs, ours = await asyncio.open_connection(*target)
    except OSError:
        _reset(writer)
        return
    try:
        await asyncio.gather(_copy(reader, ours), _copy(theirs, writer))
    except OSError:  # one side reset the connection: so it is for the other
        _reset(writer)
        _reset(ours)
    finally:
        for one in (ours, writer):
            one.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Have the other side see a reset, as of a port at which nobody listens (socket(7), SO_LINGER)."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE_BYTES):
        writer.write(data)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof()
