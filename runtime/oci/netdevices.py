"""Move network devices of the host into a container (runtime-spec 1.3, config-linux.md, "Network Devices").

When the kernel moves a device, it keeps the MAC and MTU, but takes the device down and removes its addresses. The move
therefore restores the permanent addresses of global scope in the container and brings the device up. From then on the
device is the container's: when the network namespace ends, the kernel gives a physical device back to the host and
removes a virtual one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from runtime import libc, network
from runtime.config.types import NetDevice
from runtime.errors import UsageError
from runtime.plan.constants import CLONE_NEWNET


def move_devices(devices: Mapping[str, NetDevice], pid: int) -> None:
    """Move the host's devices into the network namespace of the process ``pid``.

    Raises TestbedError naming a device that does not exist, that may not be moved, or whose new name is taken.
    """
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with network.connected() as here, _connected_in(namespace) as there:
            _check(devices, network.links(here), network.links(there))
            for name, device in devices.items():
                _move(name, device.name or name, namespace, here, there)
    finally:
        os.close(namespace)


def _check(devices: Mapping[str, NetDevice], here: Mapping[str, int], there: Mapping[str, int]) -> None:
    """Check all devices before any is moved: if the creation failed later, the kernel would remove the virtual ones."""
    taken = set(there)
    for name, device in devices.items():
        place, new_name = f"config.json: linux.netDevices.{name}", device.name or name
        if name not in here:
            raise UsageError(f"{place}: the host has no network device of this name")
        if new_name in taken:
            raise UsageError(f"{place}: the container has a network device {new_name!r} already")
        if "%" not in new_name:  # the kernel makes a free name from a pattern
            taken.add(new_name)


def _move(name: str, new_name: str, namespace: int, here: socket.socket, there: socket.socket) -> None:
    place = f"config.json: linux.netDevices.{name}"
    index = network.links(here)[name]
    addresses = network.permanent_addresses(here, index)
    before = set(network.links(there))
    network.ask(here, network.move_link(index, new_name, namespace), f"{place}: move it as {new_name}")
    # the name may be a pattern that the kernel fills in, and another device there may have the index
    after = network.links(there)
    (arrived,) = set(after) - before
    for address in addresses:
        network.ask(there, network.restore_address(after[arrived], address), f"{place}: give {arrived} its address")
    network.ask(there, network.link_up(arrived), f"{place}: bring {arrived} up")


@contextmanager
def _connected_in(namespace: int) -> Iterator[socket.socket]:
    """Yield a socket in another network namespace; a socket stays in the namespace where it was made."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.call("setns", namespace, CLONE_NEWNET)
        try:
            connection = network.connected()
        finally:
            libc.call("setns", own, CLONE_NEWNET)
    finally:
        os.close(own)
    with connection:
        yield connection
