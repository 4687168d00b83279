"""What Xen counts: no process of domain 0's is a guest, so no cgroup has its time or its memory, and domain 0's kernel
sees no more of the machine than its own part."""

from __future__ import annotations

import errno
import time
from contextlib import suppress
from typing import Any

from msgspec import Struct

from runtime.errors import TestbedError
from testbed.host.libvirt_library import load_libvirt
from testbed.sample import CLOCK_TICKS_PER_S, HostReading

# How that is counted, and what is not in it: for a run's manifest.
WORDS = (
    "by Xen, as libvirt has it (virDomainGetInfo): the time that Xen ran the guest's processors, and the memory that "
    "it gave the guest, all of it from the start on; no cgroup has either. Not in it: what domain 0 does for the guest "
    "(the other ends of its disk and network card, xenstored, xenconsoled, libvirtd), and Xen itself. The host is the "
    "whole machine: of its processors Xen's count of all guests and of domain 0, of its memory what Xen has to give "
    "(virNodeGetFreeMemory)"
)
_PROCESSORS = 2  # of virNodeInfo
_MEMORY_KIB, _CPU_NS = 2, 4  # of virDomainInfo


class DomainMeter(Struct, frozen=True):
    """Reads a running ``domain`` of libvirt's (virDomain)."""

    domain: Any

    def cpu_usage_ns(self) -> int:
        """Return the time that its processors have run, nanoseconds. Raises OSError when it has ended."""
        return self._read()[_CPU_NS]

    def memory_bytes(self) -> int:
        """Return the memory that it has of Xen. Raises OSError when it has ended."""
        return self._read()[_MEMORY_KIB] << 10

    def _read(self) -> list[int]:
        libvirt = load_libvirt()
        try:
            info: list[int] = self.domain.info()
        except libvirt.libvirtError as error:
            raise OSError(errno.ESRCH, f"ask Xen what {self.domain.name()} has used: {error}") from error
        return info


def read_machine(connection: Any) -> HostReading:
    """Read the whole machine now, of which this system is only domain 0: the time that Xen ran its processors, in the
    clock's ticks, and the memory that Xen has not given to anybody. Raises TestbedError when nobody answers."""
    libvirt = load_libvirt()
    used_ns = 0
    try:
        for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            with suppress(OSError):  # it has just ended
                used_ns += DomainMeter(domain).cpu_usage_ns()
        t_ns = time.monotonic_ns()
        total_ns = t_ns * connection.getInfo()[_PROCESSORS]
        free_bytes = connection.getFreeMemory()
    except libvirt.libvirtError as error:
        raise TestbedError(f"ask Xen what all guests have used: {error}", "see libvirt's daemon") from error
    busy, total = (value * CLOCK_TICKS_PER_S // 10**9 for value in (used_ns, total_ns))
    return HostReading(t_ns, busy, 0, total, free_bytes)
