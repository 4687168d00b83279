"""A process's mappings told apart, a guest's own account, and parts that add up to what the host sees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from testbed.breakdown import (
    GUEST_PARTS,
    PARTS,
    Charge,
    GuestMemory,
    Mapped,
    container_parts,
    given_parts,
    group_by_kind,
    guest_parts,
    parse_guest,
    parse_smaps,
    read_mappings,
    sum_parts,
    virtual_parts,
)

KIB, MIB = 1 << 10, 1 << 20
RAM = 128 * MIB


def entry(
    start: int, size_kib: int, permissions: str, path: str = "", rss_kib: int = 0, flags: str = "rd wr", **more: int
) -> str:
    """An entry of smaps as the kernel writes it; private pages unless there is a path."""
    sizes = {"Rss": rss_kib, "Pss": rss_kib, "Anonymous": 0 if path.startswith("/") else rss_kib, **more}
    head = f"{start:x}-{start + size_kib * KIB:x} {permissions} 00000000 fe:00 {42 if path else 0} {path:>30}".rstrip()
    return "\n".join([head, *(f"{key}: {size:8} kB" for key, size in sizes.items()), f"VmFlags: {flags} "]) + "\n"


# QEMU 7.2's under TCG, with few of each sort.
RAM_FLAGS = "rd wr mr mw me dc ac dd hg mg"
SMAPS = "".join(
    [
        entry(0x10000000, 8 * KIB, "r-xp", "/usr/bin/qemu-system-x86_64", 5000, Pss=2500),
        entry(0x20000000, 1340, "r--p", "/usr/bin/qemu-system-x86_64", 1004, Anonymous=1004),
        entry(0x30000000, 16 * KIB, "rw-p", "[heap]", 4508),
        entry(0x40000000, 4, "---p"),
        entry(0x40001000, 8 * KIB, "rw-p", "", 16),
        entry(0x50000000, 4, "---p"),
        entry(0x50001000, 3076, "rw-p", "", 2056),  # a stack's size it has not: the kernel merged it with a neighbour
        entry(0x60000000, 51996, "rw-p", "/store/a kernel/vmlinux", 47296, Pss=23648),
        entry(0x70000000, 128 * KIB, "rw-p", "", 81920, RAM_FLAGS, AnonHugePages=81920),
        entry(0x80000000, 256, "rw-p", "", 256, RAM_FLAGS),
        entry(0x90000000, 1048572, "rwxp", "", 51200, "rd wr ex mr mw me ac hg"),
        entry(0x7FFF0000, 132, "rw-p", "[stack]", 28),
        entry(0x7FFFF000, 8, "r-xp", "[vdso]", 4, Pss=0, Anonymous=0),
    ]
)
PRIVATE = (1004 + 4508 + 16 + 2056 + 81920 + 256 + 51200 + 28) * KIB
MEMINFO = """MemTotal:          94788 kB
MemFree:           66208 kB
MemAvailable:      72680 kB
Buffers:               8 kB
Cached:             2816 kB
AnonPages:           112 kB
Shmem:              1168 kB
HugePages_Total:       0
"""


def charge(private_bytes: int, cache_bytes: int = 0, mapped_bytes: int = 0, kernel_bytes: int = 0) -> Charge:
    return Charge(private_bytes + cache_bytes + kernel_bytes, cache_bytes, mapped_bytes, 0, kernel_bytes)


def test_every_mapping_of_qemu_is_of_one_kind() -> None:
    mappings = parse_smaps(SMAPS)
    assert len(mappings) == 13
    sizes = {name: sum(one.rss_bytes for one in group) // KIB for name, group in group_by_kind(mappings, RAM).items()}
    assert sizes == {
        "emulator_program": 5000 + 1004 + 4,
        "emulator_heap": 4508 + 2056,
        "emulator_stacks": 16 + 28,
        "boot_files": 47296,
        "guest_ram": 81920,
        "firmware": 256,
        "translated_code": 51200,
    }
    assert set(sizes) <= set(PARTS)


def test_an_entry_is_read_whole() -> None:
    (mapping,) = parse_smaps(entry(0x7F00, 2048, "rw-s", "/memfd:memory-backend-memfd (deleted)", 0, "ht dc", **HUGE))
    assert mapping == Mapped(
        0x7F00, 0x7F00 + 2 * MIB, "rw-s", "/memfd:memory-backend-memfd (deleted)", 2 * MIB, 2 * MIB, 0, 0, 2 * MIB,
        frozenset({"ht", "dc"}),
    )  # fmt: skip


HUGE = {"Shared_Hugetlb": 0, "Private_Hugetlb": 2048}


def test_the_guests_account_is_of_all_its_ram() -> None:
    guest = parse_guest(MEMINFO)
    assert guest == GuestMemory(94788 * KIB, 66208 * KIB, (2816 + 8 - 1168) * KIB, 1168 * KIB, 112 * KIB)
    parts = guest_parts(guest, RAM, 0, 80 * MIB)
    assert sum(parts.values()) == 80 * MIB
    assert parts["guest_kernel"] == RAM - (66208 + 2816 + 8 + 112) * KIB
    assert parts["guest_free"] == 80 * MIB - (RAM - guest.free_bytes)
    assert parts["absent"] == 0


def test_what_the_balloon_holds_is_not_the_kernels() -> None:
    guest = parse_guest(MEMINFO)
    given = replace(guest, total_bytes=guest.total_bytes - 32 * MIB, free_bytes=guest.free_bytes - 32 * MIB)
    before, after = guest_parts(guest, RAM, 0, 80 * MIB), guest_parts(given, RAM, 32 * MIB, 70 * MIB)
    assert after["guest_kernel"] == before["guest_kernel"]
    assert after["guest_free"] == before["guest_free"] - 10 * MIB


def test_what_a_guest_counts_and_the_host_does_not_hold_is_absent() -> None:
    parts = guest_parts(parse_guest(MEMINFO), RAM, 0, 10 * MIB)
    assert parts["absent"] == 10 * MIB - (RAM - 66208 * KIB)
    assert parts["guest_free"] == 0
    assert sum(parts.values()) == 10 * MIB


def test_memory_that_was_given_whole_is_broken_down_by_its_guest_alone() -> None:
    parts = given_parts(RAM, MEMINFO)
    assert sum(parts.values()) == RAM and parts["guest_free"] == parse_guest(MEMINFO).free_bytes
    assert given_parts(RAM, None) == {"guest_ram": RAM}


def test_parts_add_up_to_pages_cache_and_kernel_memory() -> None:
    mappings = parse_smaps(SMAPS)
    seen = charge(PRIVATE + 100 * KIB, cache_bytes=60 * MIB, mapped_bytes=50 * MIB, kernel_bytes=MIB)
    parts = virtual_parts(mappings, seen, RAM, parse_guest(MEMINFO))
    assert sum(parts.values()) == sum(one.pss_bytes for one in mappings) + (60 - 50) * MIB + MIB + 100 * KIB
    assert parts["unexplained"] == 100 * KIB
    assert list(parts) == [name for name in PARTS if name in parts]
    untold = virtual_parts(mappings, seen, RAM)
    assert untold["guest_ram"] == 81920 * KIB
    assert sum(untold.values()) == sum(parts.values())


def test_ram_that_virtiofsd_maps_too_is_the_guests_and_the_rest_its_own() -> None:
    ram, path = 80 * MIB, "/memfd:pc.ram (deleted)"
    mappings = tuple(
        replace(one, path=path, anonymous_bytes=0, pss_bytes=ram - 8 * MIB) if one.size_bytes == RAM else one
        for one in parse_smaps(SMAPS)
    )
    lender = parse_smaps(
        entry(0x1000, 2 * KIB, "r-xp", "/usr/libexec/virtiofsd", 1500)
        + entry(0x900000, 1024, "rw-p", "", 600)
        + entry(0xA00000, 640, "rw-s", path, 0)
        + entry(0xB00000, 127 * KIB, "rw-s", path, 16 * KIB, Pss=8 * KIB)
    )
    private_bytes = PRIVATE - ram + 600 * KIB
    seen = charge(private_bytes, cache_bytes=ram + MIB, mapped_bytes=ram, kernel_bytes=MIB)
    parts = virtual_parts(mappings, seen, RAM, parse_guest(MEMINFO), lender=lender)
    assert parts["lender"] == 2100 * KIB
    assert sum(parts[name] for name in GUEST_PARTS if name in parts) == ram
    assert parts["host_cache"] == MIB and "merged" not in parts and "unexplained" not in parts
    alone = virtual_parts(parse_smaps(SMAPS), charge(PRIVATE), RAM)
    assert {name: parts[name] for name in ("boot_files", "emulator_heap", "emulator_program", "firmware")} == {
        name: alone[name] for name in ("boot_files", "emulator_heap", "emulator_program", "firmware")
    }


def test_the_charge_of_merged_pages_may_be_anothers() -> None:
    mappings = parse_smaps(SMAPS)
    merged = tuple(
        replace(one, ksm_bytes=20 * MIB, pss_bytes=one.pss_bytes - 15 * MIB) if one.size_bytes == RAM else one
        for one in mappings
    )
    for private_bytes, unexplained in ((PRIVATE, 0), (PRIVATE - 20 * MIB, 0), (PRIVATE - 21 * MIB, -MIB)):
        parts = virtual_parts(merged, charge(private_bytes), RAM)
        assert parts["merged"] == -15 * MIB
        assert parts.get("unexplained", 0) == unexplained


def test_a_containers_processes_are_its_application() -> None:
    mappings = parse_smaps(
        entry(0x1000, 1024, "rw-p", "", 900) + entry(0x900000, 1024, "r-xp", "/usr/bin/ruby", 600, Pss=300)
    )
    parts = container_parts(mappings, Charge(2 * MIB, 800 * KIB, 600 * KIB, 40 * KIB, 348 * KIB))
    assert parts == {
        "application": 900 * KIB,
        "files": 40 * KIB,
        "host_cache": (300 + 800 - 40 - 600) * KIB,
        "host_kernel": 348 * KIB,
    }


def test_sums_are_part_by_part() -> None:
    assert sum_parts([{"files": 1, "application": 2}, {"application": 3}, {}]) == {"application": 5, "files": 1}


def test_a_real_process_is_read_and_one_that_is_gone_is_nothing() -> None:
    """Another process than this one, whose memory changes when it reads."""
    script = "held = bytearray(1 << 24); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"\n"
        mappings, rollup = read_mappings([process.pid, 2**22 - 1]), read_pss(process.pid)
        process.kill()
    assert rollup > 1 << 24
    assert sum(one.pss_bytes for one in mappings) == pytest.approx(rollup, rel=0.02)


def read_pss(pid: int) -> int:
    with Path(f"/proc/{pid}/smaps_rollup").open() as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) * KIB
