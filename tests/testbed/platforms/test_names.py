"""What is known of platforms by their names, before any of them is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from runtime.spec import Resources
from testbed.platforms import require_memory
from testbed.scenario.compose import Service


def services(**mebibytes: int) -> tuple[Service, ...]:
    return tuple(
        Service(name, Path("/"), Path("/Dockerfile"), Resources(memory_bytes=size << 20, cpus=1))
        for name, size in mebibytes.items()
    )


def test_all_services_too_small_for_a_machine_are_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        require_memory(("container", "vm", "vm-micro"), services(web=64, store=128, cache=8))
    assert caught.value.message.splitlines() == [
        "service web: 64 MiB of memory are too little for a virtual machine, which needs 80 MiB",
        "service cache: 8 MiB of memory are too little for a virtual machine, which needs 80 MiB",
    ]


def test_what_shares_a_machine_needs_its_memory_together() -> None:
    require_memory(("vm-pod",), services(web=64, cache=16))
    with pytest.raises(UsageError, match="service web and cache: 79 MiB"):
        require_memory(("vm-pod",), services(web=64, cache=15))


def test_containers_need_none() -> None:
    require_memory(("container", "libvirt-lxc", "vm-containers"), services(web=1))
