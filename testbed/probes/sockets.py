"""The canaries on the network: servers, packets that are counted, and traffic that is not meant for anybody else."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import threading
from contextlib import suppress

ALL = 3  # ETH_P_ALL, in host order
_SIGHT_BYTES = 2048
_MOST_PACKETS = 4096
_ASK_S = 0.5
_DELETE_ROUTE, _UP_HOST = 0x890C, 0x5  # SIOCDELRT; RTF_UP and RTF_HOST


class Server:
    """Tells its secret to whoever connects to it; its socket is ``listener``."""

    def __init__(self, listener: socket.socket, secret: str) -> None:
        self.listener, self._secret = listener, secret.encode()
        self._thread = threading.Thread(target=self._run, name="canary server", daemon=True)
        listener.listen(8)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client, suppress(OSError):
                client.settimeout(_ASK_S)
                client.sendall(self._secret)

    def close(self) -> None:
        """Listen no more."""
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join()


def listen_on_loopback(secret: str) -> Server:
    """Serve at a free port of the loopback address."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.bind(("127.0.0.1", 0))
    return Server(made, secret)


def listen_without_file(name: str, secret: str) -> Server:
    """Serve at an abstract address."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind("\0" + name)
    return Server(made, secret)


def inode_of(server: Server) -> str:
    """Return the number by which /proc/net knows a socket."""
    return str(os.fstat(server.listener.fileno()).st_ino)


def find_free_port() -> int:
    """Return a port that nothing listens at now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def ask(address: str, port: int, *, streams: bool = True) -> str:
    """Return what a server answers to whoever connects; "" where none does."""
    kind = socket.SOCK_STREAM if streams else socket.SOCK_DGRAM
    with suppress(OSError), socket.socket(socket.AF_INET, kind) as made:
        made.settimeout(_ASK_S)
        made.connect((address, port))
        if not streams:
            made.send(b"?")
        return made.recv(256).decode(errors="replace")
    return ""


def remove_route(address: str) -> None:
    """Remove the route to an address that an attempt has left in the host's own stack, if one has."""
    to = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
    route = struct.pack("@Q16s16s16sHhQQhPLLH", 0, to, bytes(16), bytes(16), _UP_HOST, 0, 0, 0, 0, 0, 0, 0, 0)
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        fcntl.ioctl(made, _DELETE_ROUTE, route)


class Wire:
    """All packets that pass the host's interfaces since it was made, and traffic of the host's with a secret."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self._packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
        self._packets.setblocking(False)
        self._sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._seen: list[bytes] = []

    def tick(self) -> None:
        """Send a datagram with the secret to nobody, and take what has passed meanwhile."""
        with suppress(OSError):
            self._sender.sendto(self._secret, ("127.0.0.1", 9))
        for _ in range(_MOST_PACKETS):
            try:
                packet = self._packets.recv(_SIGHT_BYTES)
            except OSError:
                return
            if self._secret not in packet and len(self._seen) < _MOST_PACKETS:
                self._seen.append(packet)

    def has_seen(self, token: str) -> bool:
        """Return whether a packet with a token has passed."""
        return any(token.encode() in packet for packet in self._seen)

    def close(self) -> None:
        """Look no more."""
        self._packets.close()
        self._sender.close()
