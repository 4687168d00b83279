"""rtnetlink requests as the kernel sees them."""

from __future__ import annotations

import socket

import pytest

from runtime import network
from runtime.errors import TestbedError
from testbed.lab import Lab


@pytest.mark.parametrize("name", ["", "a-name-of-16-byte"])
def test_an_interface_name_that_the_kernel_would_cut(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 15 bytes"):
        network.link_up(name)


def test_a_message_says_its_own_length() -> None:
    for message in (network.loopback_up(), network.link_up("eth0"), network.create_bridge("b", "02:00:00:00:00:01")):
        assert int.from_bytes(message[:4], "little") == len(message)
        assert len(message) % 4 == 0


@pytest.mark.root
def test_the_kernels_refusal_is_reported() -> None:
    with Lab(), pytest.raises(TestbedError, match="again: File exists"):
        network.request(network.create_bridge("tb0", "02:00:00:00:00:01"), "again")


@pytest.mark.root
def test_an_interface_becomes_a_port_of_a_bridge_with_a_chosen_index() -> None:
    with Lab():
        network.request(network.create_bridge("inner", "02:00:00:00:00:01", 77), "create inner")
        network.request(network.create_bridge("other", "02:00:00:00:00:02"), "create other")
        assert socket.if_nametoindex("inner") == 77
        with pytest.raises(TestbedError, match="port"):  # the kernel takes no bridge as a port
            network.request(network.make_port("other", 77), "make other a port of inner")
