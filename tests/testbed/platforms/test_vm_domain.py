"""The domain's XML, and the sizes in it (that libvirt accepts it, test_vm.py shows)."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from runtime.errors import UsageError
from runtime.spec import Resources
from testbed.platforms.domain import Domain, domain_xml, guest_memory_bytes, vcpu_count


def domain(accelerator: str = "tcg", mac: str | None = "02:00:0a:4d:01:0a") -> Domain:
    run = Path("/run/testbed/r/vm")
    return Domain(
        name="a0-web",
        machine="q35",
        accelerator=accelerator,
        memory_bytes=256 << 20,
        vcpus=2,
        emulator=Path("/store/emulator"),
        emulator_plan=run / "1" / "plan",
        kernel=Path("/store/vmlinux"),
        initrd=run / "1" / "initrd",
        command_line="console=ttyS0 quiet",
        disk=Path("/store/a.erofs"),
        console_socket=run / "1" / "console",
        bridge="tb0",
        mac=mac,
    )


def test_the_machine_is_what_was_asked_for() -> None:
    root = ElementTree.fromstring(domain_xml(domain()))
    memory = root.find("memory")
    assert root.get("type") == "qemu"
    assert memory is not None and (memory.text, memory.get("unit")) == (str(256 << 20), "b")
    assert root.findtext("vcpu") == "2"
    assert root.findtext("os/cmdline") == "console=ttyS0 quiet"
    assert ElementTree.fromstring(domain_xml(domain("kvm"))).get("type") == "kvm"


def test_the_disk_is_shared_and_read_only() -> None:
    disk = ElementTree.fromstring(domain_xml(domain())).find("devices/disk")
    assert disk is not None
    assert disk.find("readonly") is not None
    assert disk.find("shareable") is not None


def test_without_a_link_there_is_no_network_card() -> None:
    assert ElementTree.fromstring(domain_xml(domain(mac=None))).find("devices/interface") is None


def test_whatever_ends_the_guest_ends_qemu() -> None:
    root = ElementTree.fromstring(domain_xml(domain()))
    assert [root.findtext(event) for event in ("on_poweroff", "on_reboot", "on_crash")] == ["destroy"] * 3


@pytest.mark.parametrize(("cpus", "expected"), [(0.25, 1), (1.0, 1), (1.5, 2), (2.0, 2), (None, 8)])
def test_processors_are_enough_for_the_limit(cpus: float | None, expected: int) -> None:
    assert vcpu_count(Resources(cpus=cpus), 8) == expected


def test_ram_is_exactly_the_limit_and_has_to_be_given() -> None:
    assert guest_memory_bytes(Resources(memory_bytes=123 << 20), "web") == 123 << 20
    with pytest.raises(UsageError, match="service web has no memory limit"):
        guest_memory_bytes(Resources(), "web")


def test_too_little_memory_for_a_kernel_is_refused() -> None:
    with pytest.raises(UsageError, match="64 MiB of memory are too little"):
        guest_memory_bytes(Resources(memory_bytes=64 << 20), "web")
