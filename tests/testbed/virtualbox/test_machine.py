"""The settings file of a machine."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID
from xml.etree import ElementTree

from msgspec.structs import replace

from testbed.virtualbox.machine import Disk, Machine, machine_xml

_MIB = 1 << 20
MACHINE = Machine(
    identity=UUID(int=1),
    name="run-1",
    memory_bytes=128 * _MIB,
    vcpus=2,
    boot=Disk(UUID(int=2), Path("/run/boot.vmdk")),
    root=Disk(UUID(int=3), Path("/run/<root>.vmdk")),
    console=Path("/run/console"),
    card="vbox1",
    mac="02:00:0a:4d:01:0a",
)
_SPACE = {"v": "http://www.virtualbox.org/"}


def test_it_has_what_was_asked_for_and_ends_with_its_guest() -> None:
    root = ElementTree.fromstring(machine_xml(MACHINE))
    (machine,) = root.findall("v:Machine", _SPACE)
    assert machine.attrib == {"uuid": f"{{{UUID(int=1)}}}", "name": "run-1", "OSType": "Linux26_64"}

    def found(path: str, name: str) -> list[str | None]:
        return [one.get(name) for one in machine.findall(path, _SPACE)]

    assert found("v:Hardware/v:Memory", "RAMSize") == ["128"] and found("v:Hardware/v:CPU", "count") == ["2"]
    assert found("v:MediaRegistry//v:HardDisk", "location") == ["/run/boot.vmdk", "/run/<root>.vmdk"]
    controllers = "v:Hardware/v:StorageControllers/v:StorageController"
    assert found(controllers, "type") == ["AHCI", "VirtioSCSI"]
    assert found(f"{controllers}//v:Image", "uuid") == [f"{{{UUID(int=2)}}}", f"{{{UUID(int=3)}}}"]
    assert found("v:Hardware/v:UART/v:Port", "path") == ["/run/console"]
    assert found("v:Hardware/v:Network/v:Adapter", "MACAddress") == ["02000A4D010A"]
    assert found("v:Hardware/v:Network//v:BridgedInterface", "name") == ["vbox1"]
    assert found("v:ExtraData/v:ExtraDataItem", "name") == ["VBoxInternal/PowerOffInsteadOfReset"]
    steady = ElementTree.fromstring(machine_xml(replace(MACHINE, steady=True)))
    assert [one.get("value") for one in steady.iterfind(".//v:ExtraDataItem", _SPACE)] == ["1", "RealTSCOffset"]


def test_without_an_address_it_has_no_network_card() -> None:
    root = ElementTree.fromstring(machine_xml(replace(MACHINE, mac=None)))
    assert root.find(".//v:Network", _SPACE) is None
