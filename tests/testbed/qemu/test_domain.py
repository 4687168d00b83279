"""The domain's XML, and the sizes in it (that libvirt accepts it, test_vm.py shows)."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.spec import Resources
from testbed.qemu.domain import Domain, Ram, compute_guest_memory, count_vcpus, domain_xml, sum_resources
from testbed.qemu.pinning import Pinning, Topology
from testbed.qemu.variants import Memory


def domain(accelerator: str = "tcg", mac: str | None = "02:00:0a:4d:01:0a") -> Domain:
    run = Path("/run/testbed/r/vm")
    return Domain(
        name="a0-web",
        machine="q35",
        bus="pci",
        accelerator=accelerator,
        cpu="maximum",
        memory_bytes=256 << 20,
        vcpus=2,
        emulator=Path("/store/emulator"),
        emulator_plan=run / "1" / "plan",
        kernel=Path("/store/vmlinux"),
        initrd=run / "1" / "initrd",
        command_line="console=ttyS0 quiet",
        disks=(Path("/store/a.erofs"),),
        console_socket=run / "1" / "console",
        bridge="tb0",
        mac=mac,
        tap="tap1",
    )


def test_the_machine_is_what_was_asked_for() -> None:
    root = ElementTree.fromstring(domain_xml(domain()))
    memory = root.find("memory")
    assert root.get("type") == "qemu"
    assert memory is not None and (memory.text, memory.get("unit")) == (str(256 << 20), "b")
    assert root.findtext("vcpu") == "2"
    assert root.findtext("os/cmdline") == "console=ttyS0 quiet"
    assert ElementTree.fromstring(domain_xml(domain("kvm"))).get("type") == "kvm"


def test_what_is_lent_comes_through_a_device_and_shared_memory() -> None:
    root = ElementTree.fromstring(domain_xml(replace(domain(), share_socket=Path("/run/testbed/r/vm/1/shares"))))
    device, source = root.find("devices/filesystem"), root.find("devices/filesystem/source")
    assert device is not None and source is not None and source.get("socket") == "/run/testbed/r/vm/1/shares"
    access, memory = root.find("memoryBacking/access"), root.find("memoryBacking/source")
    assert access is not None and access.get("mode") == "shared"
    assert memory is not None and memory.get("type") == "memfd"
    assert ElementTree.fromstring(domain_xml(domain())).find("memoryBacking/access") is None


def test_the_disk_is_shared_and_read_only() -> None:
    disk = ElementTree.fromstring(domain_xml(domain())).find("devices/disk")
    assert disk is not None
    assert disk.find("readonly") is not None
    assert disk.find("shareable") is not None


def test_a_disk_of_its_own_is_written_in_the_cache_mode_that_is_named() -> None:
    own = replace(domain(), disks=(Path("/store/1-a0.qcow2"),), disk_format="qcow2", cache="none")
    disk = ElementTree.fromstring(domain_xml(own)).find("devices/disk")
    assert disk is not None
    driver = disk.find("driver")
    assert driver is not None
    assert driver.attrib == {"name": "qemu", "type": "qcow2", "cache": "none", "io": "native"}
    assert (disk.find("readonly"), disk.find("shareable")) == (None, None)


def test_its_qemu_is_roots_until_our_launcher_gives_that_up() -> None:
    def labels(one: Domain) -> list[tuple[str | None, ...]]:
        elements = ElementTree.fromstring(domain_xml(one)).iterfind("seclabel")
        return [(each.get("type"), each.get("model"), each.get("relabel"), each.findtext("label")) for each in elements]

    assert labels(domain()) == [("static", "dac", "no", "+0:+0")]
    daemons = replace(domain(), daemon=True, tap="tap1", unlabelled=("apparmor",))
    assert labels(daemons) == [("static", "dac", "no", "+0:+0"), ("none", "apparmor", None, None)]


def test_without_a_link_there_is_no_network_card() -> None:
    assert ElementTree.fromstring(domain_xml(domain(mac=None))).find("devices/interface") is None


def test_ram_can_be_a_file_that_copies_share() -> None:
    ram = Ram(7, shared=True)
    for expected, one in (("share=on", ram), ("share=off", replace(ram, shared=False))):
        arguments = _arguments(replace(domain(), ram=one))
        backend = arguments[arguments.index("-object") + 1]
        assert backend == f"memory-backend-file,id=ram,size={256 << 20},mem-path=/proc/self/fd/0,{expected}"
        assert arguments[arguments.index("-machine") + 1] == "memory-backend=ram"
        assert "-incoming" not in arguments
    assert not _arguments(domain())


def test_the_smallest_machine_has_a_clock_whatever_runs_it() -> None:
    small = replace(domain(), machine="microvm", bus="mmio", accelerator="tcg")
    modern = ["-global", "virtio-mmio.force-legacy=false"]
    assert _arguments(small) == ["-machine", "rtc=on", *modern]
    assert _arguments(replace(small, accelerator="kvm")) == ["-machine", "rtc=on,pit=off,pic=off", *modern]


def test_a_machine_without_a_kernel_waits_for_a_saved_state() -> None:
    one = replace(domain(), kernel=None)
    root = ElementTree.fromstring(domain_xml(one))
    assert one.incoming and not domain().incoming
    assert root.find("os/kernel") is None and root.find("os/initrd") is None
    assert _arguments(one) == ["-incoming", "defer"]


def _arguments(one: Domain) -> list[str]:
    elements = ElementTree.fromstring(domain_xml(one)).iter("{http://libvirt.org/schemas/domain/qemu/1.0}arg")
    return [argument.get("value", "") for argument in elements]


def test_ram_is_kept_from_ksm_unless_it_is_to_be_merged() -> None:
    assert memory_of(Memory()) == ([], ["nosharepages"], {"model": "none"})
    assert memory_of(Memory(ksm=True)) == ([], [], {"model": "none"})


def test_huge_pages_need_no_file_system_to_be_mounted() -> None:
    sizes, backing, _ = memory_of(Memory(hugepages=True))
    assert sizes == [{"size": "2", "unit": "M"}]
    assert backing == ["hugepages", "source", "nosharepages"]


@pytest.mark.parametrize(("reporting", "shown"), [(False, "off"), (True, "on")])
def test_a_balloon_is_there_for_whoever_needs_it(reporting: bool, shown: str) -> None:
    _, _, balloon = memory_of(Memory(balloon=not reporting, free_page_reporting=reporting))
    assert balloon == {"model": "virtio", "freePageReporting": shown}


def memory_of(memory: Memory) -> tuple[list[dict[str, str]], list[str], dict[str, str]]:
    """Page sizes, kinds of backing, and the balloon, of a domain's XML."""
    root = ElementTree.fromstring(domain_xml(replace(domain(), memory=memory)))
    balloon = root.find("devices/memballoon")
    assert balloon is not None
    pages = [page.attrib for page in root.iterfind("memoryBacking/hugepages/page")]
    return pages, [element.tag for element in root.iterfind("memoryBacking/*")], balloon.attrib


def test_whatever_ends_the_guest_ends_qemu() -> None:
    root = ElementTree.fromstring(domain_xml(domain()))
    assert [root.findtext(event) for event in ("on_poweroff", "on_reboot", "on_crash")] == ["destroy"] * 3


@pytest.mark.parametrize(("cpus", "expected"), [(0.25, 1), (1.0, 1), (1.5, 2), (2.0, 2), (None, 8)])
def test_processors_are_enough_for_the_limit(cpus: float | None, expected: int) -> None:
    assert count_vcpus(Resources(cpus=cpus), 8) == expected


def test_ram_is_exactly_the_limit_and_has_to_be_given() -> None:
    assert compute_guest_memory(Resources(memory_bytes=123 << 20), "web") == 123 << 20
    with pytest.raises(UsageError, match="service web has no memory limit"):
        compute_guest_memory(Resources(), "web")


def test_too_little_memory_for_a_kernel_is_refused() -> None:
    with pytest.raises(UsageError, match="64 MiB of memory are too little"):
        compute_guest_memory(Resources(memory_bytes=64 << 20), "web")


def test_services_that_share_a_machine_need_what_they_need_together() -> None:
    both = {"a": Resources(100 << 20, 0.5, 9), "b": Resources(50 << 20, 1.0)}
    assert sum_resources(both) == Resources(150 << 20, 1.5)
    assert sum_resources({**both, "c": Resources(1 << 20)}).cpus is None, "one has no limit"
    with pytest.raises(UsageError, match="service c has no memory limit"):
        sum_resources({**both, "c": Resources(cpus=1.0)})


def test_no_connection_gives_a_guest_vhost_net() -> None:
    """A daemon's guests cannot have it, so nobody's do: libvirt by itself would take it where the host has it."""
    interface = ElementTree.fromstring(domain_xml(domain())).find("devices/interface")
    assert interface is not None
    assert [driver.get("name") for driver in interface.findall("driver")] == ["qemu"]
    assert "vhost" not in domain_xml(replace(domain(), daemon=True, tap="tap0"))


@pytest.mark.parametrize(("cpu", "has_caches"), [("host-passthrough", True), ("maximum", False), ("qemu64", False)])
def test_a_tuned_guest_is_pinned_and_shown_the_topology(cpu: str, has_caches: bool) -> None:
    pinned = replace(domain(), cpu=cpu, pinning=Pinning((2, 6), Topology(1, 1, 2)))
    root = ElementTree.fromstring(domain_xml(pinned))
    assert [one.attrib for one in root.iterfind("cputune/vcpupin")] == [
        {"vcpu": "0", "cpuset": "2"},
        {"vcpu": "1", "cpuset": "6"},
    ]
    topology, cache = root.find("cpu/topology"), root.find("cpu/cache")
    assert topology is not None and topology.attrib == {"sockets": "1", "cores": "1", "threads": "2"}
    assert (cache is not None) is has_caches
    untuned = ElementTree.fromstring(domain_xml(domain()))
    assert (untuned.find("cputune"), untuned.find("cpu/topology")) == (None, None)
