"""Which cases a block has, and what each neighbour is given: numbers only."""

from __future__ import annotations

from ipaddress import IPv4Interface

import pytest

from runtime.spec import Link, Resources
from testbed.neighbours.cases import (
    LARGE_MACHINE_BYTES,
    MIB,
    OWN_DISK_BYTES,
    ROOM_BYTES,
    SHARED,
    TENANT,
    Case,
    Ceiling,
    choose_resources,
    compute_ceiling,
    find_case,
    find_shared,
    list_cases,
)
from testbed.neighbours.neighbour import make_command
from testbed.scenario.neighbours import KINDS


def test_a_block_has_the_application_alone_and_each_kind_with_and_without_limits() -> None:
    names = [case.name for case in list_cases(("spin", "fork"))]
    assert names == ["alone", "spin, limits on", "spin, limits off", "fork, limits on", "fork, limits off"]
    assert all(find_case(name, ("spin", "fork")).name == name for name in names)
    with pytest.raises(ValueError, match="no case of spin"):
        find_case("fork, limits on", ("spin",))
    assert len(list_cases(tuple(KINDS))) == 17


def test_without_limits_a_container_has_none_and_a_machine_is_large() -> None:
    on, off = Case("spin", True), Case("spin", False)
    assert choose_resources(on, True, 8) == choose_resources(on, False, 8) == TENANT
    assert choose_resources(off, False, 8) == Resources()
    assert choose_resources(off, True, 8) == Resources(memory_bytes=LARGE_MACHINE_BYTES, cpus=8.0)


def test_what_is_shared_is_a_kernel_but_between_machines() -> None:
    assert find_shared(virtual=False, hosted=False) == "host kernel"
    assert find_shared(virtual=True, hosted=False) == "hypervisor"
    assert find_shared(virtual=True, hosted=True) == "guest kernel"
    assert {find_shared(virtual, hosted) for virtual in (True, False) for hosted in (True, False)} == set(SHARED)


def test_the_ceiling_has_room_for_the_application_and_its_neighbour() -> None:
    assert compute_ceiling(384 * MIB, 2, False).memory_bytes == 384 * MIB + ROOM_BYTES
    machines = compute_ceiling(384 * MIB, 2, True).memory_bytes
    assert machines >= 384 * MIB + LARGE_MACHINE_BYTES + 3 * 128 * MIB


def test_the_neighbours_own_ceilings_are_in_its_command() -> None:
    link = Link(IPv4Interface("10.77.2.10/16"), "02:00:0a:4d:02:0a")
    kind, _, seconds, limit, tasks, gateway = make_command("memory", 99999, Ceiling(700 * MIB), link)
    assert (kind, seconds, limit, gateway) == ("memory", "3600", str(700 * MIB), "10.77.0.1")
    assert int(tasks) > Ceiling(1).tasks, "the run's own ceiling is met first"
    assert make_command("disk", 10, Ceiling(700 * MIB), link)[3] == str(OWN_DISK_BYTES)
