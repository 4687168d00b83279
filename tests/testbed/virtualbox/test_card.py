"""What a card is bridged with: frames that arrive there are whole, and nobody but the guest answers."""

from __future__ import annotations

import socket
import struct
import subprocess

import pytest

from runtime import network
from testbed.lab import Lab, link_of
from testbed.virtualbox.card import add_card
from tests.testbed.ports import await_port

pytestmark = pytest.mark.root

_ETH_P_ALL, _ETH_P_IP, _UDP = 3, 0x0800, 17
_TIMEOUT_S = 10.0


def sum_words(data: bytes) -> int:
    """The Internet checksum of data (RFC 1071), 0xffff of what has a right one in it."""
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_what_the_host_sends_arrives_with_its_checksum() -> None:
    with Lab() as lab:
        link = lab.link(0, 0)
        add_card("vbox1", link.mac, lab.bridge_index)
        await_port("vbox1p")
        with (
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as wire,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        ):
            wire.bind(("vbox1", 0))
            wire.settimeout(_TIMEOUT_S)
            sender.sendto(b"to the guest", (str(link.address.ip), 9))
            while True:
                frame = wire.recv(2048)
                if struct.unpack(">H", frame[12:14])[0] == _ETH_P_IP and frame[23] == _UDP:
                    break
        assert frame[:6] == bytes.fromhex(link_of(0, 0).mac.replace(":", ""))
        datagram = frame[34:]
        pseudo = frame[26:34] + struct.pack(">HH", _UDP, len(datagram))
        assert sum_words(pseudo + datagram) == 0xFFFF
        network.remove_link("vbox1")
        assert "vbox1" not in [name for _, name in socket.if_nameindex()]
        network.remove_link("vbox1")  # harmless


def test_the_host_does_not_answer_there() -> None:
    with Lab() as lab:
        link = lab.link(0, 0)
        add_card("vbox1", link.mac, lab.bridge_index)
        await_port("vbox1p")
        shown = subprocess.run(["ip", "-o", "link", "show", "vbox1"], check=True, capture_output=True, text=True).stdout
        assert "NOARP" in shown and "LOWER_UP" in shown
        network.remove_link("vbox1")
