"""Forwards ports of the host's loopback to services, whose network the host does not see.

The sockets that listen are made in the host's network namespace, before the lab is entered; a thread that was started
in the lab takes what comes there and connects to the service. Bytes are passed on both ways until both sides are done.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from errno import EACCES, EADDRINUSE

from msgspec import Struct

from runtime.errors import PrerequisiteError
from testbed.compose.model import Port, Service
from testbed.projects.record import Published
from testbed.services.sharing import is_on_host

LOOPBACK = "127.0.0.1"
_PIECE_BYTES = 1 << 16
_BACKLOG = 128
_MOST_TRIED = 100
_LINGER_NOT = struct.pack("ii", 1, 0)
_END_S = 5.0


class Listener(Struct, frozen=True):
    """A socket that listens on the host, and the port of a service that what comes there is for."""

    listening: socket.socket
    published: Published


def listen(service: str, port: int, wanted: Sequence[int], *, address: str = LOOPBACK, http: bool = False) -> Listener:
    """Listen for a service's port: at the first of the ``wanted`` ports of the host that is free, or else at any.

    Raises PrerequisiteError when the host refuses.
    """
    for host_port in (*wanted, 0):
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((address, host_port))
            listening.listen(_BACKLOG)
        except OSError as error:
            listening.close()
            if host_port and error.errno in (EADDRINUSE, EACCES):
                continue
            raise PrerequisiteError(
                f"publish port {port} of {service} at {address}: {error.strerror}", "publish it at another address"
            ) from error
        return Listener(listening, Published(service, port, address, listening.getsockname()[1], http))
    raise AssertionError("any port was tried last")


@contextmanager
def held_ports(services: Sequence[Service], http: tuple[str, int]) -> Iterator[tuple[Published, ...]]:
    """Within, the ports at which services in the host's own network will listen are kept from others; they are where
    those services can be reached. ``http`` is as for ``list_listeners``.

    Raises PrerequisiteError for one that is taken.
    """
    with ExitStack() as undo:
        published = []
        for service in services:
            for port in _list_own(service) if is_on_host(service, services) else ():
                listening = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    listening.bind(("", port))
                    listening.listen()
                except OSError as error:
                    raise PrerequisiteError(
                        f"{service.name}: port {port} of the host's network, which it is in: {error.strerror}",
                        "end what listens there, or give the service another port, or a network of its own",
                    ) from error
                published.append(Published(service.name, port, LOOPBACK, port, (service.name, port) == http))
        yield tuple(published)


def _list_own(service: Service) -> list[int]:
    """Return the ports at which a service says that it listens, of very many the first."""
    offered = (one.target for one in service.offers if one.protocol == "tcp")
    return list(dict.fromkeys((*service.ports, *offered)))[:_MOST_TRIED]


def list_listeners(services: Sequence[Service], http: tuple[str, int], say: Callable[[str], None]) -> list[Listener]:
    """Listen on the host for what the services publish, each once; ``http`` is the service and port of a web server.

    A port that is taken is another one, which is said, as is what cannot be forwarded. What is in the host's network
    need not be.
    """
    listeners: list[Listener] = []
    for service in services:
        for port in service.offers:
            if port.exposed or is_on_host(service, services):
                continue
            if port.protocol != "tcp":
                say(f"{service.name}: port {port.target}/{port.protocol} is not forwarded, only TCP is")
                continue
            wanted = list_wanted(port)
            address = port.host_ip if _is_address(port.host_ip) else LOOPBACK
            is_http = (service.name, port.target) == http
            listeners.append(listen(service.name, port.target, wanted, address=address, http=is_http))
            published = listeners[-1].published
            if port.published and published.host_port not in wanted:
                say(f"{service.name}: port {port.published} of this host is taken; it is at {published}")
    return listeners


def list_wanted(port: Port) -> tuple[int, ...]:
    """Return the ports of the host to try: those that are published or, where nothing is said, the port's own."""
    first, _, last = port.published.partition("-")
    if not first.isdigit() or int(first) == 0:
        return (port.target,)
    return tuple(range(int(first), min(int(last or first), int(first) + _MOST_TRIED) + 1))


def _is_address(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, text)
    except OSError:
        return False
    return True


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
