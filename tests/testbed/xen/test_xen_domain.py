"""The XML of Xen's guests: what libvirt's schema allows and understands, and where it says that their consoles are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from testbed.xen.domain import Domain, domain_xml, find_terminal
from tests.testbed.qemu.test_schema import HOSTILE, HOSTILE_PATH, driver, validate

assert driver  # a fixture


def guest(name: str = "run-t0-web", mac: str | None = "02:00:0a:4d:01:0a") -> Domain:
    folder = Path("/run/testbed/1")
    disk = Path("/dev/loop0")
    return Domain(name, 256 << 20, 1, folder / "kernel", folder / "initrd", disk, "tb0", folder / "network", mac)


def test_a_guest_is_what_the_schema_allows(driver: Any) -> None:
    understood = validate(driver, domain_xml(guest()))
    for part in ('<source dev="/dev/loop0"', "<readonly/>", 'bridge="tb0"', 'script path="/run/testbed/1/network"'):
        assert part in understood.replace("'", '"')


def test_a_guest_without_a_network_has_no_card(driver: Any) -> None:
    assert "<interface" not in validate(driver, domain_xml(guest(mac=None)))


def test_hostile_names_are_escaped(driver: Any) -> None:
    one = guest(HOSTILE)
    xml = domain_xml(Domain(one.name, 1 << 28, 1, HOSTILE_PATH, HOSTILE_PATH, one.disk, "tb0", HOSTILE_PATH, one.mac))
    understood = validate(driver, xml)
    assert "<name>a b,&lt;&amp;&gt;" in understood and understood.count("a b,&lt;") == 2


def test_the_console_of_a_running_domain_is_found() -> None:
    console = "<console type='pty' tty='/dev/pts/3'><source path='/dev/pts/3'/><target type='xen' port='0'/></console>"
    assert find_terminal(f"<domain type='xen'><devices>{console}</devices></domain>") == "/dev/pts/3"
    assert find_terminal("<domain type='xen'><devices/></domain>") == ""
