"""rtnetlink requests, sent to the kernel in a network namespace of the lab's own."""

from __future__ import annotations

import socket
import subprocess

import pytest

from runtime import network
from runtime.errors import TestbedError
from testbed.lab import BRIDGE, Lab, link_of


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", ["", "a-name-of-16-byte"])
def test_an_interface_name_that_the_kernel_would_cut(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 15 bytes"):
        network.link_up(name)


@pytest.mark.root
def test_the_lab_has_its_bridge_and_the_host_does_not() -> None:
    with Lab() as lab:
        assert lab.bridge_index == socket.if_nametoindex(BRIDGE)
        shown = ip("address", "show", BRIDGE)
        assert "10.77.0.1/16" in shown and ",UP>" in shown
    assert BRIDGE not in [name for _, name in socket.if_nameindex()]


@pytest.mark.root
def test_a_neighbour_is_permanent() -> None:
    with Lab() as lab:
        link = lab.link(0, 1)
        assert f"{link.address.ip} dev {BRIDGE} lladdr {link.mac} PERMANENT" in ip("neighbour", "show")


@pytest.mark.root
def test_the_kernels_refusal_is_reported() -> None:
    with Lab(), pytest.raises(TestbedError, match="again: File exists"):
        network.request(network.create_bridge(BRIDGE, "02:00:00:00:00:01"), "again")


def test_links_differ_by_application_and_service() -> None:
    links = {link_of(application, service) for application in range(20) for service in range(5)}
    assert len({link.mac for link in links}) == len({link.address for link in links}) == 100


def test_addresses_run_out_with_an_error() -> None:
    with pytest.raises(TestbedError, match="no address left"):
        link_of(255, 0)
