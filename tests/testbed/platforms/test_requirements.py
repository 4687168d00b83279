"""What services ask of platforms is refused by name before anything is built."""

from __future__ import annotations

import pytest

from runtime.errors import UsageError
from runtime.spec import Resources
from testbed.compose.model import Mount
from testbed.platforms.requirements import list_not_restarted, require_containers, require_memory, require_mounts
from testbed.scenario.model import Service


def services(**mebibytes: int) -> tuple[Service, ...]:
    return tuple(Service(name, Resources(memory_bytes=size << 20, cpus=1)) for name, size in mebibytes.items())


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
    containers = ("container", "libvirt-lxc", "vm-containers")
    require_memory(containers, services(web=1))
    with pytest.raises(UsageError, match="service web: 1 MiB"):
        require_memory((*containers, "vm"), services(web=1))


def test_what_is_of_this_host_is_refused_to_machines_by_name() -> None:
    limits = Resources(memory_bytes=256 << 20, cpus=1)
    services = [
        Service("web", limits),
        Service("agent", limits, only_containers=(("pid", "the processes of the host"),)),
    ]
    require_containers(["container", "crun"], services)
    require_containers(["vm"], services[:1])
    with pytest.raises(
        UsageError, match=r"agent.pid: the processes of the host: vm, vm-micro cannot have that"
    ) as caught:
        require_containers(["container", "vm", "vm-micro"], services)
    assert "--platforms container" in caught.value.hint


def test_what_a_peer_is_not_told_is_refused() -> None:
    service = Service("web", Resources(), mounts=(Mount("tmpfs", "/t"), Mount("bind", "/b", "/x")), read_only=True)
    require_mounts(("container", "vm", "crun"), (service,))
    require_mounts(("bwrap", "docker"), (Service("web", Resources()),))
    with pytest.raises(UsageError, match="web: read_only; web: tmpfs at /t: not on bwrap, docker, libvirt-lxc"):
        require_mounts(("container", "bwrap", "docker", "libvirt-lxc"), (service,))
    sized = Service("web", Resources(), shm_bytes=1 << 20)
    require_mounts(("container", "vm-containers", "crun", "podman", "docker", "lxc", "lxc-2008"), (sized,))
    with pytest.raises(UsageError, match="web: shm_size: not on process, libvirt-lxc, lmctfy-2013\n"):
        require_mounts(("process", "lxc", "libvirt-lxc", "lmctfy-2013"), (sized,))


def test_who_is_not_started_again_is_told() -> None:
    """In a machine of several: what is measured, and of what is up what would take others with it."""
    web = Service("web", Resources(), restart="always")
    side = Service("side", Resources(), restart="on-failure", pid="service:gate")
    gate, last = Service("gate", Resources(), restart="always"), Service("last", Resources())
    services, names = (gate, web, side, last), ("container", "vm", "vm-pod")
    assert list_not_restarted(names, services, measured=False) == (
        "gate: not applied on vm-pod: restart: always",
        "side: not applied on vm-pod: restart: on-failure",
    )
    measured = list_not_restarted(names, services, measured=True)
    assert [line.partition(":")[0] for line in measured] == ["gate", "web", "side"]
