"""A network namespace that can connect to the outside, and to which nothing can connect, as a RUN has it.

slirp4netns makes the connections on its behalf (libslirp, a TCP/IP stack in a process), so that the host's loopback,
its abstract sockets and its traffic are invisible inside. Services on the host's loopback that packages need, which are
a resolver, a proxy or a mirror, are relayed: only these have their address and port inside, too.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address
from typing import Any

from msgspec import Struct

from runtime import libc
from runtime.errors import PrerequisiteError
from runtime.plan.constants import CLONE_NEWNET

READY_S = 10
# By which the namespace leads out.
INTERFACE = "out0"
_DNS_PORT = 53
_PORTS = {"http": 80, "https": 443}
_URL = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?(?:[^/@\s]*@)?(?P<host>\[[^\]/]+\]|[^:/\s\"]+)(?::(?P<port>\d+))?"
)
# Its sandbox makes only `/` private before it lets go of the host's mounts: each below that is shared, as systemd makes
# them, would go from the host, too. So it gets a mount namespace in which all are private (unshare(1)'s default).
_SLIRP = (
    "unshare", "--mount",
    "slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback", "--disable-dns", "--enable-sandbox",
    "--enable-seccomp", "--netns-type=path",
)  # fmt: skip


class Service(Struct, frozen=True, order=True):
    """A service that the host reaches, on its loopback: its ``address`` and ``port``, and whether it uses UDP. It has
    the same port inside, and the same address unless there is one ``inside``."""

    address: str
    port: int
    udp: bool = False
    inside: str = ""


def loopback_services(urls: Iterable[str], resolver: str) -> tuple[Service, ...]:
    """Return the services on the host's loopback among ``urls`` (of mirrors and proxies) and among the name servers of
    ``resolver``, the text of resolv.conf(5)."""
    services: set[Service] = set()
    for url in urls:
        match = _URL.match(url)
        if match and (address := _loopback(match["host"].strip("[]"))):
            port = int(match["port"] or _PORTS.get(match["scheme"] or "", 0))
            if 0 < port < 65536:
                services.add(Service(address, port))
    for line in resolver.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and (address := _loopback(words[1])):
            services |= {Service(address, _DNS_PORT), Service(address, _DNS_PORT, udp=True)}
    return tuple(sorted(services))


def _loopback(host: str) -> str:
    """Return the address of ``host`` if it is one of the loopback interface, else an empty string."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ip_address(host)
    except ValueError:
        return ""
    return str(address) if address.is_loopback else ""


@contextmanager
def outgoing(pid: int, services: Iterable[Service], environment: Mapping[str, str]) -> Iterator[None]:
    """Connect the network namespace of the process ``pid``: outwards through slirp4netns, and to ``services``.

    The connection ends with the context, and with this process however that ends. Raises PrerequisiteError if
    slirp4netns is missing or fails, or if an address cannot be bound inside.
    """
    with ExitStack() as undo:
        leave, stay = os.pipe()
        undo.callback(os.close, stay)
        process = _start_slirp(pid, leave, environment)
        undo.callback(process.wait)
        undo.callback(process.kill)
        if services := tuple(services):
            undo.enter_context(_relayed(pid, services))
        yield


def _start_slirp(pid: int, leave: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start slirp4netns, and return once the interface is configured. It ends when ``leave``'s other end is closed."""
    if shutil.which("slirp4netns", path=environment.get("PATH")) is None:
        raise PrerequisiteError("slirp4netns is not installed", "apt-get install slirp4netns")
    ready, told = os.pipe()
    said, saying = os.pipe()
    os.set_blocking(saying, False)  # later nobody reads the pipe, and what does not fit into it is lost
    command = [*_SLIRP, f"--ready-fd={told}", f"--exit-fd={leave}", f"/proc/{pid}/ns/net", INTERFACE]
    with ExitStack() as opened:
        opened.callback(os.close, ready)
        opened.callback(os.close, said)
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=saying, stderr=saying, pass_fds=(told, leave), env=environment
            )
        finally:
            for descriptor in (told, leave, saying):
                os.close(descriptor)
        readable, _, _ = select.select([ready], [], [], READY_S)
        if readable and os.read(ready, 1):
            return process
        process.kill()
        process.wait()
        words = os.read(said, 1 << 16).decode(errors="replace").strip().splitlines()
        raise PrerequisiteError(
            f"connect to the network: slirp4netns: {words[-1] if words else 'no answer'}",
            "it needs /dev/net/tun: try `modprobe tun`",
        )


@contextmanager
def _relayed(pid: int, services: tuple[Service, ...]) -> Iterator[None]:
    import asyncio

    sockets = _bound_inside(pid, services)
    serving: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        over = asyncio.Event()
        relays = [
            asyncio.create_task(_datagrams(service, inside) if service.udp else _streams(service, inside))
            for service, inside in zip(services, sockets, strict=True)
        ]
        serving.set_result((asyncio.get_running_loop(), over))
        await over.wait()
        for relay in relays:
            relay.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="relay", daemon=True)
    thread.start()
    loop, over = serving.result()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        for inside in sockets:
            inside.close()


def _bound_inside(pid: int, services: tuple[Service, ...]) -> list[socket.socket]:
    """Return a socket for each service, bound to its address in the network namespace of ``pid``, which a thread enters
    for that."""
    sockets: list[socket.socket] = []
    failures: list[OSError] = []

    def bind() -> None:
        try:
            with open(f"/proc/{pid}/ns/net", "rb") as namespace:
                libc.call("setns", namespace.fileno(), CLONE_NEWNET)
            for service in services:
                address = service.inside or service.address
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                made = socket.socket(family, socket.SOCK_DGRAM if service.udp else socket.SOCK_STREAM)
                sockets.append(made)
                made.bind((address, service.port))
                if not service.udp:
                    made.listen()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=bind)
    thread.start()
    thread.join()
    if failures:
        for made in sockets:
            made.close()
        raise PrerequisiteError(f"relay {services} inwards: {failures[0].strerror}")
    return sockets


async def _streams(service: Service, inside: socket.socket) -> None:
    import asyncio

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(1 << 16):
                writer.write(chunk)
                await writer.drain()
            writer.write_eof()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            answers, asking = await asyncio.open_connection(service.address, service.port)
            await asyncio.gather(pump(reader, asking), pump(answers, writer))
            asking.close()
        writer.close()

    server = await asyncio.start_server(accepted, sock=inside)
    await server.serve_forever()


def _datagram_socket(address: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


async def _datagrams(service: Service, inside: socket.socket) -> None:
    import asyncio

    loop = asyncio.get_running_loop()
    inside.setblocking(False)

    async def answer(question: bytes, asker: Any) -> None:
        with suppress(OSError, TimeoutError), _datagram_socket(service.address) as outside:
            outside.setblocking(False)
            await loop.sock_connect(outside, (service.address, service.port))
            await loop.sock_sendall(outside, question)
            said = await asyncio.wait_for(loop.sock_recv(outside, 1 << 16), READY_S)
            await loop.sock_sendto(inside, said, asker)

    answering: set[asyncio.Task[None]] = set()  # the loop itself does not keep tasks alive
    while True:
        question, asker = await loop.sock_recvfrom(inside, 1 << 16)
        task = loop.create_task(answer(question, asker))
        answering.add(task)
        task.add_done_callback(answering.discard)
