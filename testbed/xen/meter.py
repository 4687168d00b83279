"""What Xen counts of a guest: no process of domain 0's is the guest, so no cgroup has its time or its memory."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from runtime.errors import TestbedError
from testbed.host.libvirt_library import load_libvirt

# How that is counted, and what is not in it: for a run's manifest.
WORDS = (
    "by Xen, as libvirt has it (virDomainGetInfo): the time that Xen ran the guest's processors, and the memory that "
    "it gave the guest, all of it from the start on; no cgroup has either. Not in it: what domain 0 does for the guest "
    "(the other ends of its disk and network card, xenstored, xenconsoled, libvirtd), and Xen itself"
)
_MEMORY_KIB, _CPU_NS = 2, 4


class DomainMeter(Struct, frozen=True):
    """Reads a running ``domain`` of libvirt's (virDomain)."""

    domain: Any

    def cpu_usage_ns(self) -> int:
        """Return the time that its processors have run, nanoseconds. Raises TestbedError when it has ended."""
        return self._read()[_CPU_NS]

    def memory_bytes(self) -> int:
        """Return the memory that it has of Xen. Raises TestbedError when it has ended."""
        return self._read()[_MEMORY_KIB] << 10

    def _read(self) -> list[int]:
        libvirt = load_libvirt()
        try:
            info: list[int] = self.domain.info()
        except libvirt.libvirtError as error:
            raise TestbedError(f"ask Xen what {self.domain.name()} has used: {error}") from error
        return info
