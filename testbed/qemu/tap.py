"""A tap of our own on the lab's bridge, for a QEMU that libvirt cannot give one: its daemon is in another namespace."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from runtime import network
from runtime.errors import PrerequisiteError, TestbedError

DEVICE = "/dev/net/tun"
DEVICE_NUMBER = (10, 200)  # Documentation/admin-guide/devices.txt
# include/uapi/linux/if_tun.h; flags as QEMU's own (net/tap-linux.c), which has to give the same ones to attach.
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000


def create_tap(name: str, bridge_index: int, owner: int = 0) -> None:
    """Make the persistent tap ``name`` in the caller's network namespace, up and a port of the bridge.

    The user ``owner`` may attach to it. Raises PrerequisiteError without /dev/net/tun, TestbedError for the rest.
    """
    try:
        device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise PrerequisiteError(f"open {DEVICE}: {error.strerror}", "load the module tun") from error
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(device, _TUNSETOWNER, owner)
        fcntl.ioctl(device, _TUNSETPERSIST, 1)
        network.request(network.join_bridge(socket.if_nametoindex(name), bridge_index), f"put {name} on the bridge")
    except OSError as error:
        raise TestbedError(f"make tap {name}: {error.strerror}") from error
    finally:
        os.close(device)
