"""Applies a variant's way of sharing the host's memory: changes the host for it, and asks guests for memory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime.errors import UsageError, WorkloadError
from testbed.host import ksm
from testbed.host.libvirt_library import load_libvirt
from testbed.host.settings import change_settings
from testbed.qemu.variants import Memory

# Huge pages that are taken from the host's free memory when a guest starts, and go back there when it ends:
# unlike those of nr_hugepages they cost nothing in between (Documentation/admin-guide/mm/hugetlbpage.rst).
OVERCOMMIT = Path("/proc/sys/vm/nr_overcommit_hugepages")
HUGE_PAGE_BYTES = 2 << 20
# What a guest keeps of what it could do without: it must not have to swap, or to end a process, for its next request.
KEEP_BYTES = 16 << 20
_POLL_S = 0.05


def describe_memory(memory: Memory) -> str:
    """Return the options that are on, in words; for a manifest."""
    words = {
        "balloon": memory.balloon,
        "free page reporting": memory.free_page_reporting,
        f"KSM ({ksm.PAGES_TO_SCAN} pages each 20 ms)": memory.ksm,
        "huge pages of 2 MiB": memory.hugepages,
    }
    return ", ".join(word for word, on in words.items() if on) or "RAM stays with the guest that has touched it"


def require_whole_pages(memory: Memory, ram_bytes: int, service: str) -> None:
    """Raise UsageError when the guest's RAM is not made of whole huge pages and should be."""
    if memory.hugepages and ram_bytes % HUGE_PAGE_BYTES:
        raise UsageError(
            f"service {service}: {ram_bytes} bytes of memory are no whole number of huge pages",
            f"set deploy.resources.limits.memory to a multiple of {HUGE_PAGE_BYTES >> 20} MiB",
        )


@contextmanager
def while_prepared(memory: Memory, lease: Path) -> Iterator[None]:
    """Change the host as the variant needs it throughout a run. Raises what ``change_settings`` raises."""
    if memory.ksm:
        ksm.require()
    if not memory.hugepages:
        yield
        return
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // HUGE_PAGE_BYTES
    with change_settings({OVERCOMMIT: str(most)}, lease):
        yield


@contextmanager
def while_running(memory: Memory, lease: Path) -> Iterator[None]:
    """Change the host as the variant needs it while a guest of it runs: merging pages takes processor time from
    others."""
    if not memory.ksm:
        yield
        return
    with ksm.merging(lease):
        yield


def read_ballooned_bytes(domain: Any, ram_bytes: int) -> int:
    """Return how much of its RAM the guest has given to the balloon. Raises WorkloadError when it has ended."""
    return ram_bytes - _actual_bytes(domain)


def _actual_bytes(domain: Any) -> int:
    libvirt = load_libvirt()
    try:
        return int(domain.memoryStats()["actual"]) * 1024
    except libvirt.libvirtError as error:
        raise WorkloadError(f"ask virtual machine {domain.name()} for the size of its balloon: {error}") from error


def inflate(domain: Any, target_bytes: int, timeout_s: float) -> int:
    """Ask the guest to make do with ``target_bytes`` of its RAM; returns what it has left when it has done so.

    Raises WorkloadError when it gives back nothing in that time; a part is fine, for it may need the rest.
    """
    libvirt = load_libvirt()
    before = actual = _actual_bytes(domain)
    try:
        domain.setMemoryFlags(target_bytes // 1024, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError as error:
        raise WorkloadError(f"inflate the balloon of virtual machine {domain.name()}: {error}") from error
    deadline_s = time.monotonic() + timeout_s
    while actual > target_bytes and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)
        actual = _actual_bytes(domain)
    if actual >= before > target_bytes:
        raise WorkloadError(
            f"virtual machine {domain.name()}: its balloon did not grow within {timeout_s:g} s",
            "does its kernel have virtio_balloon?",
        )
    return actual
