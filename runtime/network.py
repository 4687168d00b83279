"""This module builds the requests that configure the kernel's network (rtnetlink(7)), as bytes.

The functions that build requests are pure: plans carry the messages and the launcher sends them. ``request`` sends one
from Python. There are only the requests that a lab needs: for bridges, veths, addresses, routes and neighbours. The
numbers are those of include/uapi/linux/rtnetlink.h, if_link.h and neighbour.h.
"""

from __future__ import annotations

import os
import socket
import struct

from msgspec import Struct

from runtime.errors import TestbedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Interface

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _DELADDR, _GETADDR, _NEWROUTE, _NEWNEIGH, _GETNEIGH = 20, 21, 22, 24, 28, 30
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _REPLACE, _EXCL, _CREATE, _DUMP = 1, 4, 0x100, 0x200, 0x400, 0x300
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_IFA_F_PERMANENT, _SCOPE_UNIVERSE = 0x80, 0
_IFF_UP, _IFF_NOARP = 1, 0x80
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_PROTINFO, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 10, 12, 18, 28
_BRPORT_LEARNING, _BRPORT_UNICAST_FLOOD = 8, 9
_INFO_KIND, _INFO_DATA = 1, 2
_VETH_INFO_PEER = 1
_NLA_F_NESTED = 0x8000
_NDA_LLADDR = 2
_NUD_NOARP, _NUD_PERMANENT = 0x40, 0x80
_NTF_MASTER, _NTF_STICKY = 0x04, 0x40
_AF_BRIDGE = 7

LOOPBACK_INDEX = 1


def _attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)


def _name(kind: int, name: str) -> bytes:
    if not 0 < len(name.encode()) < 16:
        raise ValueError(f"interface name {name!r}: 1 to 15 bytes are allowed")
    return _attribute(kind, name.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))


def _message(kind: int, body: bytes, flags: int = 0) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _ACK | flags, 0, 0) + body


def _mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def link_up(name: str) -> bytes:
    """Bring the interface ``name`` up."""
    return _message(_NEWLINK, _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP) + _name(_IFLA_IFNAME, name))


def link_down(name: str) -> bytes:
    """Take the interface ``name`` down, which also removes its IPv6 addresses."""
    return _message(_NEWLINK, _LINK.pack(0, 0, 0, 0, _IFF_UP) + _name(_IFLA_IFNAME, name))


def loopback_up() -> bytes:
    """Bring the loopback interface up, which is the first one of every network namespace."""
    return _message(_NEWLINK, _LINK.pack(0, 0, LOOPBACK_INDEX, _IFF_UP, _IFF_UP))


def create_bridge(name: str, mac: str, index: int = 0) -> bytes:
    """Create a bridge and bring it up; with ``index`` 0 the kernel chooses its interface index."""
    info = _attribute(_IFLA_LINKINFO, _attribute(_INFO_KIND, b"bridge"))
    body = _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP) + _name(_IFLA_IFNAME, name)
    return _message(_NEWLINK, body + _attribute(_IFLA_ADDRESS, _mac(mac)) + info, _CREATE | _EXCL)


def make_port(name: str, bridge_index: int) -> bytes:
    """Make the interface ``name`` a port of the bridge, and bring it up."""
    body = _LINK.pack(0, 0, 0, _IFF_UP, _IFF_UP) + _name(_IFLA_IFNAME, name)
    return _message(_NEWLINK, body + _number(_IFLA_MASTER, bridge_index))


class VethEnd(Struct, frozen=True):
    """One end of a veth pair: its name and its interface index. The kernel takes indices for both ends or neither."""

    name: str
    index: int


def create_veth(here: VethEnd, bridge_index: int, peer: VethEnd, peer_mac: str, peer_namespace_fd: int) -> bytes:
    """Create a veth pair. One end is here, up and a port of the bridge; its peer is in another namespace."""
    peer_body = (
        _LINK.pack(0, 0, peer.index, 0, 0)
        + _name(_IFLA_IFNAME, peer.name)
        + _attribute(_IFLA_ADDRESS, _mac(peer_mac))
        + _number(_IFLA_NET_NS_FD, peer_namespace_fd)
    )
    return _create_port(here, bridge_index, peer_body)


def create_lead(port: str, bridge_index: int, end: str) -> bytes:
    """Create a veth pair, both ends here. One is up and a port of the bridge; at the other, ``end``, the kernel asks
    nobody for addresses and answers to nobody (IFF_NOARP), so that it is free for whoever takes its frames."""
    peer_body = _LINK.pack(0, 0, 0, _IFF_NOARP, _IFF_NOARP) + _name(_IFLA_IFNAME, end)
    return _create_port(VethEnd(port, 0), bridge_index, peer_body)


def _create_port(here: VethEnd, bridge_index: int, peer_body: bytes) -> bytes:
    data = _attribute(_INFO_DATA | _NLA_F_NESTED, _attribute(_VETH_INFO_PEER | _NLA_F_NESTED, peer_body))
    info = _attribute(_IFLA_LINKINFO | _NLA_F_NESTED, _attribute(_INFO_KIND, b"veth") + data)
    body = _LINK.pack(0, 0, here.index, _IFF_UP, _IFF_UP) + _name(_IFLA_IFNAME, here.name)
    return _message(_NEWLINK, body + _number(_IFLA_MASTER, bridge_index) + info, _CREATE | _EXCL)


def join_bridge(index: int, bridge_index: int) -> bytes:
    """Make the interface a port of the bridge and bring it up."""
    return _message(_NEWLINK, _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP) + _number(_IFLA_MASTER, bridge_index))


def fix_port(index: int) -> bytes:
    """Stop a bridge from learning addresses at this port, so that it sends only frames for its given addresses there.

    If a port learned, whoever is behind it could take others' traffic by sending with their MAC.
    """
    settings = b"".join(_attribute(kind, b"\0") for kind in (_BRPORT_LEARNING, _BRPORT_UNICAST_FLOOD))
    body = _LINK.pack(_AF_BRIDGE, 0, index, 0, 0) + _attribute(_IFLA_PROTINFO | _NLA_F_NESTED, settings)
    return _message(_SETLINK, body)


def add_port_address(index: int, mac: str) -> bytes:
    """Send frames for this MAC to this port of a bridge, wherever frames from it are seen."""
    body = _NEIGHBOUR.pack(_AF_BRIDGE, index, _NUD_NOARP, _NTF_MASTER | _NTF_STICKY, 0)
    return _message(_NEWNEIGH, body + _attribute(2, _mac(mac)), _CREATE | _REPLACE)


def delete_link(index: int) -> bytes:
    """Remove the interface."""
    return _message(_DELLINK, _LINK.pack(0, 0, index, 0, 0))


def add_address(index: int, interface: IPv4Interface) -> bytes:
    """Give the interface with this ``index`` an address; the kernel adds the connected route."""
    packed = interface.ip.packed
    body = _ADDRESS.pack(socket.AF_INET, interface.network.prefixlen, 0, 0, index)
    return _message(_NEWADDR, body + _attribute(2, packed) + _attribute(1, packed), _CREATE | _REPLACE)


def delete_address(index: int, interface: IPv4Interface) -> bytes:
    """Remove an address and the routes that depend on it."""
    body = _ADDRESS.pack(socket.AF_INET, interface.network.prefixlen, 0, 0, index)
    return _message(_DELADDR, body + _attribute(2, interface.ip.packed))


def set_mac(index: int, mac: str) -> bytes:
    """Give the interface with this ``index`` another MAC; the kernel then forgets the interface's neighbours."""
    return _message(_NEWLINK, _LINK.pack(0, 0, index, 0, 0) + _attribute(_IFLA_ADDRESS, _mac(mac)))


def add_default_route(gateway: IPv4Address) -> bytes:
    """Route everything else through ``gateway``, with a static unicast route of universe scope in the main table."""
    body = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 254, 4, 0, 1, 0) + _attribute(5, gateway.packed)
    return _message(_NEWROUTE, body, _CREATE)


def add_neighbour(index: int, address: IPv4Address, mac: str) -> bytes:
    """Add a permanent neighbour entry, so that a peer that is not up yet costs no ARP timeout."""
    body = _NEIGHBOUR.pack(socket.AF_INET, index, _NUD_PERMANENT, 0, 1)
    return _message(_NEWNEIGH, body + _attribute(1, address.packed) + _attribute(2, _mac(mac)), _CREATE | _REPLACE)


def move_link(index: int, name: str, namespace_fd: int) -> bytes:
    """Move the interface with this ``index`` into another namespace and rename it to ``name``, both at once."""
    body = _LINK.pack(0, 0, index, 0, 0) + _number(_IFLA_NET_NS_FD, namespace_fd)
    return _message(_NEWLINK, body + _name(_IFLA_IFNAME, name))


def connected() -> socket.socket:
    """Return a socket to the network configuration of the caller's network namespace."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            break
        found[kind & ~_NLA_F_NESTED] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def _dump(route: socket.socket, kind: int, body: bytes) -> list[bytes]:
    """Return the bodies of all the kernel's objects of one kind."""
    route.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _DUMP, 0, 0) + body)
    found: list[bytes] = []
    while True:
        data = route.recv(1 << 16)
        while data:
            length, answer, *_ = _HEADER.unpack_from(data)
            if answer in (_NLMSG_ERROR, _NLMSG_DONE):
                return found
            found.append(data[_HEADER.size : length])
            data = data[(length + 3) & ~3 :]


def links(route: socket.socket) -> dict[str, int]:
    """Return the indices of the interfaces in the socket's namespace, by name."""
    return {
        _attributes(body[_LINK.size :])[_IFLA_IFNAME].rstrip(b"\0").decode(errors="replace"): _LINK.unpack_from(body)[2]
        for body in _dump(route, _GETLINK, _LINK.pack(0, 0, 0, 0, 0))
    }


def bridge_addresses(route: socket.socket) -> dict[str, int]:
    """Return the indices of the ports behind which bridges in the socket's namespace have seen each MAC, or were told
    that it is: their forwarding databases."""
    found: dict[str, int] = {}
    for body in _dump(route, _GETNEIGH, _NEIGHBOUR.pack(_AF_BRIDGE, 0, 0, 0, 0)):
        mac = _attributes(body[_NEIGHBOUR.size :]).get(_NDA_LLADDR, b"")
        found[mac.hex(":")] = _NEIGHBOUR.unpack_from(body)[1]
    return found


def permanent_addresses(route: socket.socket, index: int) -> list[bytes]:
    """Return an interface's permanent addresses of universe scope, as ``restore_address`` takes them."""
    found: list[bytes] = []
    for body in _dump(route, _GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0)):
        _, _, flags, scope, of = _ADDRESS.unpack_from(body)
        if of == index and flags & _IFA_F_PERMANENT and scope == _SCOPE_UNIVERSE:
            found.append(body)
    return found


def restore_address(index: int, address: bytes) -> bytes:
    """Give the interface with this ``index`` an address that ``permanent_addresses`` returned."""
    family, prefix_length, _, scope, _ = _ADDRESS.unpack_from(address)
    attributes = _attributes(address[_ADDRESS.size :])
    body = _ADDRESS.pack(family, prefix_length, 0, scope, index)
    kept = (_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST)  # without the label, which begins with the former name
    body += b"".join(_attribute(kind, attributes[kind]) for kind in kept if kind in attributes)
    return _message(_NEWADDR, body, _CREATE | _REPLACE)


def ask(route: socket.socket, message: bytes, what: str) -> None:
    """Send one request. Raises TestbedError with the kernel's answer."""
    route.send(message)
    answer = route.recv(4096)
    (error,) = struct.unpack_from("=i", answer, _HEADER.size)
    if error:
        raise TestbedError(f"{what}: {os.strerror(-error)}")


def remove_link(name: str) -> None:
    """Remove an interface of the caller's network namespace; an absent one is fine. Raises as ``request``."""
    try:
        index = socket.if_nametoindex(name)
    except OSError:
        return
    request(delete_link(index), f"remove {name}")


def request(message: bytes, what: str) -> None:
    """Send one request in the caller's network namespace. Raises TestbedError with the kernel's answer."""
    with connected() as route:
        ask(route, message, what)
