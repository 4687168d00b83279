"""Domains' XML against libvirt's own schema, by its test driver, and names and paths that must be escaped for real."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from runtime.spec import Link, Process, Resources, Spec
from testbed.lab import link_of
from testbed.platforms import libvirt_lxc
from testbed.qemu.connection import destroy_domain, embedded_uri, ensure_event_loop, start_domain
from testbed.qemu.domain import domain_xml
from testbed.qemu.pinning import Pinning, Topology
from testbed.qemu.variants import VARIANTS
from tests.testbed.qemu.test_domain import domain

HOSTILE = "a b,<&>\"'é=#%;x"
HOSTILE_PATH = Path(f"/run/{HOSTILE}/x")


@pytest.fixture
def driver() -> Iterator[Any]:
    """libvirt's test driver, which needs no hypervisor and knows no domains but its own."""
    libvirt = ensure_event_loop()
    try:
        connection = libvirt.open("test:///default")
    except libvirt.libvirtError as error:
        pytest.skip(f"libvirt has no test driver: {error}")
    yield connection
    connection.close()


def validate(driver: Any, xml: str) -> str:
    """Start the domain in the test driver, which checks the schema; the XML as libvirt has understood it."""
    libvirt = ensure_event_loop()
    root = ElementTree.fromstring(xml)
    ElementTree.register_namespace("qemu", "http://libvirt.org/schemas/domain/qemu/1.0")
    root.set("type", "test")
    made = driver.createXML(ElementTree.tostring(root, encoding="unicode"), libvirt.VIR_DOMAIN_START_VALIDATE)
    understood: str = made.XMLDesc()
    made.destroy()
    return understood


@pytest.mark.parametrize("variant", sorted(VARIANTS))
@pytest.mark.parametrize("accelerator", ["kvm", "tcg"])
@pytest.mark.parametrize("daemon", [False, True])
def test_every_kind_of_machine_is_what_the_schema_allows(
    driver: Any, variant: str, accelerator: str, daemon: bool
) -> None:
    machine = VARIANTS[variant].machine
    one = replace(domain(accelerator), machine=machine, daemon=daemon, tap="tap1")
    assert "<name>a0-web</name>" in validate(driver, domain_xml(one))
    validate(driver, domain_xml(replace(one, mac=None, tap="", unlabelled=("apparmor",))))
    pinning = Pinning((0, 1), Topology(1, 2, 1)) if VARIANTS[variant].pinned else None
    cpu = "host-passthrough" if accelerator == "kvm" else "maximum"
    validate(driver, domain_xml(replace(one, cpu=cpu, pinning=pinning)))


def test_what_the_schema_does_not_allow_is_refused(driver: Any) -> None:
    """Else the tests above would say nothing."""
    libvirt = ensure_event_loop()
    xml = domain_xml(domain()).replace("vcpu>", "vcpus>")
    with pytest.raises(libvirt.libvirtError, match="vcpus"):
        validate(driver, xml)


def test_names_and_paths_come_through_as_they_are(driver: Any) -> None:
    one = replace(
        domain(),
        name=HOSTILE,
        kernel=HOSTILE_PATH,
        initrd=HOSTILE_PATH,
        console_socket=HOSTILE_PATH,
        emulator=HOSTILE_PATH,
        emulator_plan=HOSTILE_PATH,
        command_line=HOSTILE,
    )
    root = ElementTree.fromstring(validate(driver, domain_xml(one)))
    assert root.findtext("name") == HOSTILE
    assert root.findtext("os/cmdline") == HOSTILE
    assert {root.findtext("os/kernel"), root.findtext("os/initrd"), root.findtext("devices/emulator")} == {
        str(HOSTILE_PATH)
    }
    source = root.find("devices/serial/source")
    assert source is not None and source.get("path") == str(HOSTILE_PATH)
    environment = ElementTree.fromstring(domain_xml(one)).iter("{http://libvirt.org/schemas/domain/qemu/1.0}env")
    assert [entry.get("value") for entry in environment] == [str(HOSTILE_PATH)]


def test_libvirts_containers_are_what_the_schema_allows(driver: Any) -> None:
    link = link_of(0, 0)
    spec = Spec(Process(args=("true",)), ("/layer",), "boxed", Resources(64 << 20, 0.5, 24), link=link)
    spec = replace(spec, link=Link(link.address, link.mac, link.address.ip))
    one = libvirt_lxc.Domain(HOSTILE, spec, HOSTILE_PATH, HOSTILE_PATH, HOSTILE_PATH, "tb0", HOSTILE_PATH, "lxc1")
    understood = ElementTree.fromstring(validate(driver, libvirt_lxc.domain_xml(one, 1 << 30)))
    assert understood.findtext("name") == HOSTILE
    assert [source.get("dir") for source in understood.iter("source") if source.get("dir")] == [str(HOSTILE_PATH)] * 3
    validate(
        driver, libvirt_lxc.domain_xml(replace(one, spec=replace(spec, resources=Resources(), link=None)), 1 << 30)
    )


def test_a_domain_starts_and_ends_and_ends_again(driver: Any) -> None:
    xml = domain_xml(domain()).replace('type="qemu"', 'type="test"', 1)
    started = start_domain(driver, xml, "a0-web")
    assert "a0-web" in [domain.name() for domain in driver.listAllDomains()]
    destroy_domain(started)
    destroy_domain(started)
    assert "a0-web" not in [domain.name() for domain in driver.listAllDomains()]


@pytest.mark.root
def test_the_embedded_drivers_root_may_be_any_path(tmp_path: Path) -> None:
    """In a process of its own: the driver knows one root for as long as its process lives."""
    root = tmp_path / HOSTILE
    (root / "etc").mkdir(parents=True)
    script = "import sys; from testbed.qemu.connection import ensure_event_loop as ready; "
    script += "ready().open(sys.argv[1]).close()"
    subprocess.run([sys.executable, "-c", script, embedded_uri(root)], check=True, timeout=60, capture_output=True)
    assert (root / "lib" / "qemu").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == [HOSTILE]
