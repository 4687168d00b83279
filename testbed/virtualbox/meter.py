"""What a machine of VirtualBox's takes: its process's cgroup has the processors' time, but not the guest's memory,
which a module of the kernel allocates on nobody's account."""

from __future__ import annotations

import errno
from xml.etree import ElementTree

from msgspec import Struct

from runtime.cgroups import Cgroup
from runtime.errors import TestbedError
from testbed.virtualbox.service import Service

# How that is counted, for a run's manifest.
WORDS = (
    "the processor time that the cgroup of the machine's process counts, its virtual processors' included; the memory "
    "that is charged to this cgroup, and the guest's pages as VirtualBox counts them (/GMM/VM/Allocated of its own "
    "statistics), which no cgroup has: its module of the kernel allocates them. Not in it: VBoxSVC, which knows all "
    "machines, and the module's own memory"
)
_PAGES = "/GMM/VM/Allocated/*"
_PAGE_BYTES = 4096


class MachineMeter(Struct, frozen=True):
    """Reads a running machine: the ``cgroup`` of its process, and the ``service`` that knows it by ``name``."""

    cgroup: Cgroup
    service: Service
    name: str

    def cpu_usage_ns(self) -> int:
        """Return the processor time that it has used, nanoseconds. Raises OSError when it has ended."""
        return self.cgroup.cpu_usage_ns()

    def memory_bytes(self) -> int:
        """Return the memory that it has. Raises OSError when it has ended."""
        return self.cgroup.memory_bytes() + self.guest_bytes()

    def guest_bytes(self) -> int:
        """Return the memory that its guest has. Raises OSError when it has ended."""
        try:
            return parse_pages(self.service.ask("debugvm", self.name, "statistics", "--pattern", _PAGES)) * _PAGE_BYTES
        except TestbedError as error:
            raise OSError(errno.ESRCH, f"ask VirtualBox what {self.name} has: {error}") from error


def parse_pages(text: str) -> int:
    """Return how many pages a machine has, from its statistics. Raises TestbedError when they do not say."""
    try:
        counters = list(ElementTree.fromstring(text))  # VirtualBox wrote it
        return sum(int(one.get("val", "")) for one in counters if one.get("unit") == "pages") or _refuse(text)
    except (ElementTree.ParseError, ValueError):
        return _refuse(text)


def _refuse(text: str) -> int:
    raise TestbedError(f"VirtualBox's statistics name no pages: {text[:200]!r}", "report this version of VirtualBox")
