"""Make the plan steps for a container's network namespace: its loopback interface, and a veth pair to a bridge."""

from __future__ import annotations

from msgspec import Struct

from runtime import network
from runtime.plan.steps import Netlink, NetlinkSocket, Open, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.spec import Link

# The interface's index inside is far above those of the interfaces (tunnels) that a new network namespace may have.
_INTERFACE = network.VethEnd("eth0", 100)
# Ports have indexes of their own, above those that the kernel assigns by itself in a lab.
_FIRST_PORT_INDEX = 100_000
# These descriptors live until exec: a socket in the namespace, the namespace itself, a socket in the lab's namespace.
OWN_SOCKET, OWN_NAMESPACE, _LAB_SOCKET = 110, 107, 106


class Attachment(Struct, frozen=True):
    """Describes the lab's end of a container's network: the bridge's index, and a number that is unique to the port."""

    bridge_index: int
    port: int

    def veth(self) -> network.VethEnd:
        """Return the interface that is the port."""
        return network.VethEnd(f"v{self.port}", _FIRST_PORT_INDEX + self.port)


class Connection(Struct, frozen=True):
    """Holds both ends of a container's network: the ``link`` inside, and the attachment outside.

    The container's own process makes the veth pair, unless it is ``made_outside``: what is in a user namespace has no
    right to the lab's bridge, so its parent makes the pair (``veth_requests``) while the process waits.
    """

    link: Link
    attachment: Attachment
    made_outside: bool = False


def loopback_steps() -> tuple[Step, ...]:
    """Bring up the loopback interface of the network namespace that the process is in."""
    return (NetlinkSocket(OWN_SOCKET), Netlink(OWN_SOCKET, network.loopback_up(), "bring lo up"))


def link_steps(socket: int, index: int, link: Link, mac: str = "") -> tuple[Step, ...]:
    """Give eth0, the interface with ``index``, the address and the route of ``link``, and ``mac`` if there is one."""
    steps: list[Step] = [Netlink(socket, network.set_mac(index, mac), f"eth0's MAC is {mac}")] if mac else []
    steps += [
        Netlink(socket, network.add_address(index, link.address), f"eth0 is {link.address}"),
        Netlink(socket, network.link_up("eth0"), "bring eth0 up"),
    ]
    if link.gateway:
        route = network.add_default_route(link.gateway)
        steps.append(Netlink(socket, route, f"default route by {link.gateway}"))
    return tuple(steps)


def outside_steps(connection: Connection | None) -> tuple[Step, ...]:
    """Open the socket that is needed from the lab's network namespace, while the process is still in it."""
    return (NetlinkSocket(_LAB_SOCKET),) if connection and not connection.made_outside else ()


def veth_requests(connection: Connection, namespace_fd: int) -> tuple[tuple[bytes, str], ...]:
    """Return the requests, each with what it does, that put one end of a veth pair into the network namespace behind a
    descriptor, and the other end on the bridge."""
    link, port = connection.link, connection.attachment.veth()
    veth = network.create_veth(port, connection.attachment.bridge_index, _INTERFACE, link.mac, namespace_fd)
    return (
        (veth, f"create veth {port.name} on the bridge, its peer eth0 here"),
        (network.fix_port(port.index), f"the bridge learns nothing from {port.name}"),
        (network.add_port_address(port.index, link.mac), f"{link.mac} is at {port.name}"),
    )


def namespace_steps(connection: Connection | None) -> tuple[Step, ...]:
    """Fill a new network namespace with its loopback interface and, with ``connection``, one end of a veth pair, for
    which the namespace must be held (``hold_steps``)."""
    if connection is None:
        return loopback_steps()
    requests = () if connection.made_outside else veth_requests(connection, OWN_NAMESPACE)
    return (
        *(Netlink(_LAB_SOCKET, message, what) for message, what in requests),
        *loopback_steps(),
        *link_steps(OWN_SOCKET, _INTERFACE.index, connection.link),
    )


def address_steps(link: Link, bridge_index: int) -> tuple[Step, ...]:
    """Give the lab's bridge the address of a container that has no network of its own."""
    message = network.add_address(bridge_index, link.address)
    return (NetlinkSocket(_LAB_SOCKET), Netlink(_LAB_SOCKET, message, f"the host's stack has {link.address}, too"))


def hold_steps() -> tuple[Step, ...]:
    """Hold open the network namespace that the process is in."""
    return (Open("/proc/thread-self/ns/net", OWN_NAMESPACE),)
