"""Programs that keep a cgroup to one address, as instructions; tests of rungs have the kernel run them."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from runtime.cgroups.addresses import address_programs

ADDRESS = IPv4Address("10.77.1.10")


def test_there_is_one_for_making_binding_and_connecting_a_socket() -> None:
    programs = address_programs(ADDRESS)
    assert [(one.kind, one.attach) for one in programs] == [(9, 2), (18, 8), (18, 10)]
    for one in programs:
        assert len(one.code) % 8 == 0 and one.code[-8] == 0x95, "it ends with an exit"


def test_jumps_lead_to_instructions_within_the_program() -> None:
    for one in address_programs(ADDRESS):
        code = [struct.unpack_from("<BBhi", one.code, at) for at in range(0, len(one.code), 8)]
        for at, (operation, _, offset, _) in enumerate(code):
            if operation in (0x05, 0x16):
                assert 0 <= at + 1 + offset < len(code)


def test_the_address_is_in_network_order_in_memory() -> None:
    _, bind, connect = address_programs(ADDRESS)
    assert bind.code.count(ADDRESS.packed) == 2 and connect.code.count(ADDRESS.packed) == 2
