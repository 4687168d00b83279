"""The lab: a private network namespace with a bridge, which the measuring process itself enters.

What the process starts is born in the namespace, so containers, QEMU and the load generator share one
network that the host does not see, and nothing of it outlives its last process.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from itertools import count
from pathlib import Path
from types import TracebackType

from msgspec.structs import replace

from runtime import libc, network
from runtime.errors import PrerequisiteError, TestbedError
from runtime.plan.constants import CLONE_NEWNET
from runtime.plan.network import Attachment
from runtime.spec import Link

BRIDGE = "tb0"
NETWORK = IPv4Network("10.77.0.0/16")
# The bridge's own address.
GATEWAY = NETWORK.network_address + 1
# A bridge takes 1,023 ports (include/uapi: BR_PORT_BITS 10), one a service.
PORTS_LIMIT = 1023
_SERVICES_LIMIT = 200


def mac_of(address: IPv4Address) -> str:
    """Return a locally administered MAC that says the address: 02:00 and its four bytes."""
    return ":".join(f"{byte:02x}" for byte in b"\x02\x00" + address.packed)


def link_of(application: int, service: int) -> Link:
    """Return the interface of a service (counted from 0) of a copy of the application (counted from 0)."""
    if not 0 <= service < _SERVICES_LIMIT or not 0 <= application < 255:
        raise TestbedError(f"no address left for service {service} of application {application}")
    address = NETWORK.network_address + 256 * (application + 1) + 10 + service
    return Link(IPv4Interface(f"{address}/{NETWORK.prefixlen}"), mac_of(address))


def fix_port(name: str, *macs: str) -> None:
    """Make ``macs`` the addresses behind the port ``name`` of a bridge, whatever is sent from there.

    The port is in the caller's network namespace. Raises TestbedError when the kernel refuses.
    """
    index = socket.if_nametoindex(name)
    network.request(network.fix_port(index), f"have the bridge learn nothing from {name}")
    for mac in macs:
        network.request(network.add_port_address(index, mac), f"tell the bridge that {mac} is at {name}")


def find_ports(macs: Collection[str]) -> dict[str, str]:
    """Return the names of the ports, of bridges in the caller's network namespace, that these MACs are behind, by MAC.

    One that has sent nothing for five minutes, and was not fixed, is unknown.
    """
    with network.connected() as route:
        names = {index: name for name, index in network.links(route).items()}
        known = network.bridge_addresses(route)
    return {mac: names[index] for mac, index in known.items() if mac in macs and index in names}


def _move(function: str, *arguments: int) -> None:
    try:
        libc.call(function, *arguments)
    except OSError as error:
        raise PrerequisiteError(f"move to another network namespace: {error.strerror}", "run as root") from error


class Lab:
    """A context manager: enter the namespace and build the bridge; leave it and let the kernel take it apart.

    It is the calling thread that moves, and threads that it starts later; enter before starting any.
    ``bridge_index`` is the bridge's interface index while inside. One that leads ``outward`` is the way out of all
    that is in it, and asks names for it (testbed.projects.outward); else nothing leads out. Of one that ``lends_host``,
    services that are to be in the host's network are where the lab was entered from, at ``host_path``; else that is
    empty, and the lab stands for the host.
    """

    def __init__(self, *, outward: bool = False, lends_host: bool = False) -> None:
        self.outward = outward
        self.bridge_index = 0
        self.host_path = ""
        self._lends_host = lends_host
        self._attachments = count(1)
        self._undo = ExitStack()
        self._neighbours: set[str] = set()
        self._when_entered: list[Callable[[], None]] = []

    def when_entered(self, act: Callable[[], None]) -> None:
        """Have ``act`` called as soon as the namespace and the bridge are there."""
        self._when_entered.append(act)

    def __enter__(self) -> Lab:
        with ExitStack() as undo:
            home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            undo.callback(os.close, home)
            _move("unshare", CLONE_NEWNET)
            undo.callback(_move, "setns", home, CLONE_NEWNET)
            if self._lends_host:
                self.host_path = f"/proc/{os.getpid()}/fd/{home}"
                undo.callback(setattr, self, "host_path", "")
            self._build()
            for act in self._when_entered:
                act()
            self._undo = undo.pop_all()
        return self

    def _build(self) -> None:
        for scope in ("all", "default"):
            # Duplicate address detection would put multicast on the bridge at every start.
            setting = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
            if setting.exists():
                setting.write_text("1")
        network.request(network.loopback_up(), "bring lo up in the lab")
        network.request(network.create_bridge(BRIDGE, mac_of(GATEWAY)), f"create bridge {BRIDGE}")
        self.bridge_index = socket.if_nametoindex(BRIDGE)
        address = IPv4Interface(f"{GATEWAY}/{NETWORK.prefixlen}")
        network.request(network.add_address(self.bridge_index, address), f"give {BRIDGE} {address}")

    def attach(self) -> Attachment:
        """Return where one more container is attached. No two have the same, whatever platform they are of: a veth
        outlives its namespace for a moment. Threads may ask at once."""
        return Attachment(self.bridge_index, next(self._attachments))

    def link(self, application: int, service: int) -> Link:
        """Return what ``link_of`` does, with the lab's own neighbour entry for it set.

        A probe of an address that is not up yet would otherwise wait for ARP, whose retries are a second
        apart, and see the workload late.
        """
        link = link_of(application, service)
        if self.outward:
            link = replace(link, gateway=GATEWAY)
        if link.mac not in self._neighbours:
            message = network.add_neighbour(self.bridge_index, link.address.ip, link.mac)
            network.request(message, f"set neighbour {link.address.ip}")
            self._neighbours.add(link.mac)
        return link

    def open_socket(self, on_host: bool = False) -> socket.socket:
        """Return a socket for TCP in the lab or, ``on_host``, in the network that services of the host's are in."""
        if not on_host or not self.host_path:
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with Path(self.host_path).open("rb") as host, Path("/proc/thread-self/ns/net").open("rb") as lab:
            try:
                _move("setns", host.fileno(), CLONE_NEWNET)
                return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            finally:
                _move("setns", lab.fileno(), CLONE_NEWNET)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()
