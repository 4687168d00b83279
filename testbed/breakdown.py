"""Breaks down an instance's memory, part by part.

A guest's memory is broken down by what it reports itself (its /proc/meminfo), QEMU by its mappings (/proc/PID/smaps),
the rest by what the cgroup is charged for. The three know nothing of each other, and what they do not agree on is a
part of its own, ``unexplained`` (in reports: unattributed).

A page that several processes map is divided among them, as PSS does it; page cache that nobody maps counts in full
for the cgroup that is charged for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from runtime.cgroups import Cgroup
from runtime.kernel_files import parse_meminfo

PROC = Path("/proc")
_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ *(.*)")
_GUARD_BYTES = 4096
# glibc's stacks of threads (the default of RLIMIT_STACK), QEMU's of coroutines (COROUTINE_STACK_SIZE).
_STACK_BYTES = (8 << 20, 1 << 20)

# The parts in the order in which they are shown, and how they are called.
PARTS: Mapping[str, str] = {
    "application": "application",
    "files": "files in RAM",
    "guest_cache": "guest: page cache",
    "guest_kernel": "guest: kernel",
    "guest_free": "guest: free, but not returned",
    "guest_ram": "guest: RAM, not broken down",
    "translated_code": "QEMU: translated code",
    "emulator_program": "QEMU: program, libraries",
    "emulator_heap": "QEMU: heap",
    "emulator_stacks": "QEMU: stacks",
    "firmware": "QEMU: firmware",
    "lender": "virtiofsd: its own",
    "boot_files": "host: kernel and initrd files",
    "host_cache": "host: page cache",
    "host_kernel": "host: kernel",
    "absent": "guest: counted, but zero or untouched",
    "merged": "merged by KSM",
    "overhead": "runtime: its own processes",
    "unexplained": "unattributed",
}
# The parts that are the guest's own RAM, and those that QEMU needs besides.
GUEST_PARTS = ("application", "files", "guest_cache", "guest_kernel", "guest_free", "guest_ram", "absent", "merged")
EMULATOR_PARTS = (
    *("translated_code", "emulator_program", "emulator_heap", "emulator_stacks", "firmware", "lender", "boot_files"),
)


class Mapped(Struct, frozen=True):
    """One mapping of a process, an entry of its smaps (proc(5)); sizes in bytes.

    ``rss_bytes`` has huge pages of hugetlbfs too, which the kernel counts apart; ``ksm_bytes`` are merged pages.
    ``flags`` are VmFlags: ``dc`` is MADV_DONTFORK, which QEMU gives to RAM and ROMs of the guest and to nothing else.
    """

    start: int
    end: int
    permissions: str
    path: str
    rss_bytes: int = 0
    pss_bytes: int = 0
    anonymous_bytes: int = 0
    ksm_bytes: int = 0
    huge_bytes: int = 0
    flags: frozenset[str] = field(default_factory=frozenset)

    @property
    def size_bytes(self) -> int:
        return self.end - self.start


class Charge(Struct, frozen=True):
    """What a cgroup is charged for, in bytes: ``mapped`` and ``shared`` (tmpfs) are parts of ``cache``."""

    total_bytes: int
    cache_bytes: int
    mapped_bytes: int
    shared_bytes: int
    kernel_bytes: int


class GuestMemory(Struct, frozen=True):
    """What a guest's kernel reports of its memory, in bytes; ``cache_bytes`` is without ``files_bytes`` (tmpfs)."""

    total_bytes: int
    free_bytes: int
    cache_bytes: int
    files_bytes: int
    application_bytes: int


def parse_smaps(text: str) -> tuple[Mapped, ...]:
    """Return the mappings in the order of their addresses."""
    mappings: list[Mapped] = []
    entry: dict[str, str] = {}
    head: re.Match[str] | None = None
    for line in [*text.splitlines(), "0-0 ---- 0 0:0 0"]:
        if (begin := _HEAD.fullmatch(line)) is None:
            key, _, value = line.partition(":")
            entry[key] = value
            continue
        if head is not None:
            mappings.append(_mapped(head, entry))
        head, entry = begin, {}
    return tuple(mappings)


def _mapped(head: re.Match[str], entry: Mapping[str, str]) -> Mapped:
    def size_bytes(*keys: str) -> int:
        return sum(int(entry.get(key, "0").split()[0]) for key in keys) * 1024

    hugetlb_bytes = size_bytes("Shared_Hugetlb", "Private_Hugetlb")
    return Mapped(
        int(head[1], 16),
        int(head[2], 16),
        head[3],
        head[4],
        size_bytes("Rss") + hugetlb_bytes,
        size_bytes("Pss") + hugetlb_bytes,
        size_bytes("Anonymous"),
        size_bytes("KSM"),
        size_bytes("AnonHugePages") + hugetlb_bytes,
        frozenset(entry.get("VmFlags", "").split()),
    )


def parse_guest(meminfo: str) -> GuestMemory:
    """Return a guest's account of its memory from its /proc/meminfo. Raises KeyError when a line is missing."""
    sizes = parse_meminfo(meminfo)
    return GuestMemory(
        sizes["MemTotal"],
        sizes["MemFree"],
        sizes["Cached"] + sizes["Buffers"] - sizes["Shmem"],
        sizes["Shmem"],
        sizes["AnonPages"],
    )


def classify_mapping(mapped: Mapped, before: Mapped | None, programs: Iterable[str], ram_bytes: int) -> str:
    """Return the part that a mapping of QEMU belongs to.

    ``before`` is the mapping below it, ``programs`` are the paths that QEMU runs code from, ``ram_bytes`` is the
    size of the guest's RAM.
    """
    if "dc" in mapped.flags:
        return "guest_ram" if mapped.size_bytes == ram_bytes else "firmware"
    if mapped.path.startswith("/"):
        return "emulator_program" if mapped.path in programs else "boot_files"
    if "x" in mapped.permissions and "w" in mapped.permissions:
        return "translated_code"
    if "x" in mapped.permissions or mapped.path == "[vvar]":
        return "emulator_program"
    if mapped.path == "[stack]" or (
        mapped.size_bytes in _STACK_BYTES and before is not None and _guards(before, mapped)
    ):
        return "emulator_stacks"
    return "emulator_heap"


def _guards(before: Mapped, mapped: Mapped) -> bool:
    """Return whether ``before`` is the page without access below a stack."""
    return before.end == mapped.start and before.size_bytes == _GUARD_BYTES and before.permissions.startswith("---")


def group_by_kind(mappings: Sequence[Mapped], ram_bytes: int) -> dict[str, list[Mapped]]:
    """Group QEMU's mappings by the part that they belong to."""
    programs = {one.path for one in mappings if one.path.startswith("/") and "x" in one.permissions}
    kinds: dict[str, list[Mapped]] = {}
    for before, mapped in zip([None, *mappings], mappings, strict=False):
        kinds.setdefault(classify_mapping(mapped, before, programs, ram_bytes), []).append(mapped)
    return kinds


def guest_parts(guest: GuestMemory, ram_bytes: int, ballooned_bytes: int, resident_bytes: int) -> dict[str, int]:
    """Return the guest's RAM by its own account; ``resident_bytes`` is how much of it the host really holds.

    Whatever is neither free nor cache nor an application's is the kernel's, with what it never hands out. What the
    balloon holds is out of the guest's total, and is nobody's. ``absent``, at most 0, is what the guest counts and the
    host does not hold: pages that were never touched, or are zero (the kernel drops those from huge pages it splits).
    """
    used = {"application": guest.application_bytes, "files": guest.files_bytes, "guest_cache": guest.cache_bytes}
    used["guest_kernel"] = ram_bytes - ballooned_bytes - guest.free_bytes - sum(used.values())
    rest_bytes = resident_bytes - sum(used.values())
    return {**used, "guest_free": max(rest_bytes, 0), "absent": min(rest_bytes, 0)}


def beyond(value: int, low: int, high: int) -> int:
    """Return how far ``value`` is outside of an interval: negative below it."""
    return min(value - low, 0) + max(value - high, 0)


def virtual_parts(
    mappings: Sequence[Mapped],
    charge: Charge,
    ram_bytes: int,
    guest: GuestMemory | None = None,
    ballooned_bytes: int = 0,
    lender: Sequence[Mapped] = (),
) -> dict[str, int]:
    """Return the parts of a virtual machine's memory, in bytes. Without word from the guest its RAM is one part.

    The mappings of a ``lender``, which serves a device to QEMU, are its own but for the guest's RAM, which both map and
    PSS divides between them. That is a file in memory then, and the cgroup is charged for it as page cache; QEMU's
    private pages must be what its cgroup is charged for besides page cache and kernel memory. Of pages that
    KSM has merged the charge may be any other cgroup's.
    """
    groups = group_by_kind(mappings, ram_bytes)
    parts = {name: sum(one.pss_bytes for one in group) for name, group in groups.items()}
    shared = {one.path for one in groups.get("guest_ram", ()) if one.path}
    lent_bytes = sum(one.pss_bytes for one in lender if one.path in shared)
    parts["guest_ram"] = parts.get("guest_ram", 0) + lent_bytes
    parts["lender"] = sum(one.pss_bytes for one in lender) - lent_bytes
    resident_bytes = sum(one.rss_bytes for one in groups.get("guest_ram", ()))
    if shared:  # nor does KSM merge any of it
        resident_bytes = parts["guest_ram"]
    merged_bytes = resident_bytes - parts.pop("guest_ram")
    if guest is None:
        parts["guest_ram"] = resident_bytes
    else:
        parts |= guest_parts(guest, ram_bytes, ballooned_bytes, resident_bytes)
    private_bytes = sum(one.anonymous_bytes for one in (*mappings, *lender))
    parts["merged"] = -merged_bytes
    parts["host_cache"] = max(charge.cache_bytes - charge.mapped_bytes, 0)
    parts["host_kernel"] = charge.kernel_bytes
    parts["unexplained"] = beyond(
        charge.total_bytes - charge.cache_bytes - charge.kernel_bytes,
        private_bytes - sum(one.ksm_bytes for one in mappings),
        private_bytes,
    )
    return sort_parts(parts)


def given_parts(ram_bytes: int, meminfo: str | None) -> dict[str, int]:
    """Return the parts of a machine's memory that somebody gave it whole, in bytes; ``meminfo`` is the word of its
    guest, if it has any."""
    if meminfo is None:
        return {"guest_ram": ram_bytes}
    return sort_parts(guest_parts(parse_guest(meminfo), ram_bytes, 0, ram_bytes))


def read_container_parts(cgroup: Cgroup) -> dict[str, int]:
    """Read what the processes of a container hold now, as ``container_parts``."""
    return container_parts(read_mappings(cgroup.pids()), read_charge(cgroup))


def container_parts(mappings: Sequence[Mapped], charge: Charge) -> dict[str, int]:
    """Return the parts of a container's memory, in bytes; ``mappings`` are those of all its processes."""
    private_bytes = sum(one.anonymous_bytes for one in mappings)
    application_bytes = sum(one.pss_bytes for one in mappings if not one.path.startswith("/"))
    shared_bytes = sum(one.pss_bytes for one in mappings) - application_bytes
    return sort_parts(
        {
            "application": application_bytes,
            "files": charge.shared_bytes,
            "host_cache": shared_bytes + max(charge.cache_bytes - charge.shared_bytes - charge.mapped_bytes, 0),
            "host_kernel": charge.kernel_bytes,
            "unexplained": beyond(
                charge.total_bytes - charge.cache_bytes - charge.kernel_bytes, application_bytes, private_bytes
            ),
        }
    )


def sort_parts(parts: Mapping[str, int]) -> dict[str, int]:
    """Return the parts in the order of PARTS, without those that are empty."""
    return {name: parts[name] for name in PARTS if parts.get(name)}


def sum_parts(all_parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sum over instances, part by part."""
    sums: dict[str, int] = {}
    for parts in all_parts:
        for name, value in parts.items():
            sums[name] = sums.get(name, 0) + value
    return sort_parts(sums)


def read_mappings(pids: Iterable[int]) -> tuple[Mapped, ...]:
    """Return the mappings of processes, one process after the other; those that have ended by now have none."""
    mappings: list[Mapped] = []
    for pid in pids:
        try:
            mappings += parse_smaps((PROC / str(pid) / "smaps").read_text(errors="replace"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return tuple(mappings)


def read_charge(cgroup: Cgroup) -> Charge:
    """Return what the cgroup is charged for now. Raises OSError when it is gone."""
    stat = cgroup.memory_stat()
    if "memory" in cgroup.hierarchies.v1:
        kernel_bytes = int(cgroup.file("memory", "memory.kmem.usage_in_bytes", "").read_text())
        names = ("total_cache", "total_mapped_file", "total_shmem")
    else:
        # "kernel" is their sum from Linux 5.18 on.
        parts = ("kernel_stack", "pagetables", "percpu", "sock", "slab")
        kernel_bytes = stat.get("kernel", sum(stat.get(part, 0) for part in parts))
        names = ("file", "file_mapped", "shmem")
    cache_bytes, mapped_bytes, shared_bytes = (stat.get(name, 0) for name in names)
    return Charge(cgroup.memory_bytes(), cache_bytes, mapped_bytes, shared_bytes, kernel_bytes)


def peer_parts(mappings: Sequence[Mapped], charge: Charge, overhead_bytes: int) -> dict[str, int]:
    """Return where the memory of a peer's container goes: ``mappings`` are the workload's, ``charge`` is that of all,
    ``overhead_bytes`` that of the peer's own processes."""
    rest = replace(charge, total_bytes=max(charge.total_bytes - overhead_bytes, 0))
    return sort_parts({**container_parts(mappings, rest), "overhead": overhead_bytes})
