"""What a machine's network card is bridged with: an end of a veth pair, whose other end is a port of the lab's bridge.

VirtualBox's filter hands on what arrives at an interface as it is. What the host sends through a veth has no checksum
yet and may be larger than a frame, as no wire follows, and a guest would drop it; so the port's side does both.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct

from runtime import network
from runtime.errors import TestbedError
from testbed.lab import fix_port

# include/uapi/linux/sockios.h and ethtool.h: without checksums by the device, the kernel makes them, and frames.
_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17
_VALUE = struct.Struct("II")


def add_card(card: str, mac: str, bridge_index: int) -> None:
    """Make the interface ``card`` in the caller's network namespace, and its port the only one that ``mac`` is behind.

    Raises TestbedError when the kernel refuses.
    """
    port = f"{card}p"
    network.request(network.create_lead(port, bridge_index, card), f"create veth {card}, its peer a port of the bridge")
    network.request(network.link_up(card), f"bring {card} up")
    fix_port(port, mac)
    _make_checksums(port)


def _make_checksums(port: str) -> None:
    value = ctypes.create_string_buffer(_VALUE.pack(_ETHTOOL_STXCSUM, 0), _VALUE.size)
    request = struct.pack("16sP16x", port.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
        except OSError as error:
            raise TestbedError(f"have the kernel make the checksums of {port}: {error.strerror}") from error
