"""The way out of the lab of an application that is up: to other networks, but not to the host's loopback.

slirp4netns makes the connections, as it does for a RUN of a Dockerfile (runtime.outgoing). It is the lab's
default route, and the lab forwards between that and its bridge; it answers for the addresses behind the bridge, since
slirp4netns asks for those as if they were at its end of the wire. Names are asked of the lab's own address, where the
host's name servers are relayed.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType

from runtime.config.default import DEFAULT_PATH
from runtime.errors import PrerequisiteError
from runtime.outgoing import INTERFACE, Service, outgoing
from testbed.lab import GATEWAY

_RESOLVER = Path("/etc/resolv.conf")
_DNS_PORT = 53
# The lab's own settings: it forwards, and answers for those behind it.
_SETTINGS = ("ip_forward", f"conf/{INTERFACE}/proxy_arp")


def find_name_server(resolver: str) -> str:
    """Return the first name server of a resolv.conf(5) by its text; empty without one that has an address."""
    for words in map(str.split, resolver.splitlines()):
        if len(words) > 1 and words[0] == "nameserver":
            with suppress(ValueError):
                return str(ip_address(words[1]))
    return ""


class Outward:
    """A context manager, to be entered in the host's network namespace; the lab leads out from ``connect`` on.

    A thread of it stays in that namespace, where what is connected goes on from.
    """

    def __init__(self) -> None:
        self._wanted, self._over = threading.Event(), threading.Event()
        self._connected: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="outward", daemon=True)

    def __enter__(self) -> Outward:
        self._thread.start()
        return self

    def connect(self) -> None:
        """Connect the lab that the process's first thread has entered. Raises PrerequisiteError when that fails."""
        self._wanted.set()
        self._connected.result()
        for name in _SETTINGS:
            try:
                Path(f"/proc/sys/net/ipv4/{name}").write_text("1")
            except OSError as error:
                raise PrerequisiteError(f"set net.ipv4.{name} in the lab: {error.strerror}") from error

    def _run(self) -> None:
        self._wanted.wait()
        if self._over.is_set():
            return
        try:
            server = find_name_server(_RESOLVER.read_text(errors="replace") if _RESOLVER.exists() else "")
            inside = str(GATEWAY)
            services = [Service(server, _DNS_PORT, udp, inside) for udp in (False, True)] if server else []
            with outgoing(os.getpid(), services, {"PATH": DEFAULT_PATH}):
                self._connected.set_result(None)
                self._over.wait()
        except Exception as error:  # raised in the thread that waits for the connection
            if self._connected.done():
                raise
            self._connected.set_exception(error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._wanted.set()
        self._thread.join()
