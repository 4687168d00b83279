"""Hypervisors of history that libvirt has drivers for and the testbed has no platform for: what is here of each, and
why it does not run there.

A machine of the testbed's gets its kernel and plan from its hypervisor, its network from the run's own namespace, and
somebody counts what it takes. VMware boots from disks only; its services make its networks, and start its processes,
outside of that namespace and of a run's cgroups; and libvirt's driver gives 0 for their processor time
(vmware_driver.c). It cannot be had where this is made, not even in the reference machine, and a platform that nobody
has ever seen run would promise what nobody knows.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NoReturn

from msgspec import Struct

from runtime.errors import PrerequisiteError
from testbed.qemu.connection import ensure_event_loop


class Hypervisor(Struct, frozen=True):
    """``uri`` is libvirt's for it; one of the ``programs`` shows that it is installed, which has its ``origin``.
    ``reason`` is why no machine of the testbed's runs there all the same."""

    title: str
    uri: str
    programs: tuple[str, ...]
    origin: str
    reason: str


HYPERVISORS: Mapping[str, Hypervisor] = MappingProxyType(
    {
        "vmware": Hypervisor(
            "VMware Player or Workstation",
            "vmwareplayer:///session",
            ("vmplayer", "vmware", "vmrun"),
            "its maker has installers",
            "it boots from disks only, has no network in a run's namespace, and libvirt counts no processor time there",
        ),
    }
)


def ask_libvirt(uri: str) -> str:
    """Return why libvirt does not open a connection, in its own words; "" when it does. No daemon is started for it."""
    libvirt = ensure_event_loop()
    try:
        libvirt.open(uri).close()
    except libvirt.libvirtError as error:
        return str(error)
    return ""


def find_lacking(
    one: Hypervisor,
    which: Callable[[str], str | None] = shutil.which,
    ask: Callable[[str], str] = ask_libvirt,
) -> tuple[str, str]:
    """Return what of a hypervisor is missing here and what to do about it; both empty when all is there."""
    if not any(which(program) for program in one.programs):
        return f"{one.title} is not here: no {' or '.join(one.programs)} on the PATH", one.origin
    if words := ask(one.uri):
        return f"{one.title} is not here for libvirt: {words}", "run as who it is installed for, with libvirt's daemon"
    return "", ""


def refuse_hypervisor(name: str) -> NoReturn:
    """Raise PrerequisiteError with what is missing of a hypervisor, or else why the testbed runs nothing there."""
    one = HYPERVISORS[name]
    missing, fix = find_lacking(one)
    if missing:
        raise PrerequisiteError(
            f"{missing} (libvirt's {one.uri})", f"{fix}; even so nothing of the testbed's runs there yet: {one.reason}"
        )
    raise PrerequisiteError(
        f"{one.title} is here (libvirt opens {one.uri}), but no machine of the testbed's runs there: {one.reason}",
        "vm and hardware-2006 are machines with KVM, virtualbox ones of VirtualBox's, vm-cloud boots from its disk",
    )
