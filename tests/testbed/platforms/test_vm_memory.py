"""Where real guests' memory goes, and what balloon, free page reporting, KSM and huge pages do about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from runtime.kernel_files import available_bytes
from runtime.spec import Process, Resources, Spec
from testbed.breakdown import EMULATOR_PARTS, GUEST_PARTS
from testbed.host import ksm
from testbed.lab import Lab
from testbed.platforms.protocol import Instance
from testbed.platforms.vm import VmPlatform
from testbed.qemu.memory import KEEP_BYTES, OVERCOMMIT
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.vm]

MIB = 1 << 20
RAM = 128 * MIB
TIMEOUT_S = 60.0
# Holds 24 MiB, then gives 8 of them back to the guest's kernel, and stays.
HOLD = """
busybox dd if=/dev/zero of=/tmp/kept bs=1M count=16 2>/dev/null
busybox dd if=/dev/zero of=/tmp/freed bs=1M count=24 2>/dev/null; busybox rm /tmp/freed
echo holding; exec sleep 600
"""


def holding(platform: VmPlatform, layer: Path, tmp_path: Path, count: int = 1, ram: int = RAM) -> list[Instance]:
    """So many guests that hold something, once all do."""
    spec = Spec(Process(args=("sh", "-c", HOLD)), (str(layer),), "boxed", Resources(ram, 1.0, 24))
    instances = [Instance(f"a{n}-web", n, {"web": spec}, tmp_path / f"{platform.name}-{n}.log") for n in range(count)]
    for one in instances:
        platform.start(one)
    for one in instances:
        platform.started(one, TIMEOUT_S)
    until(
        lambda: all("holding" in one.log.read_text() for one in instances),
        TIMEOUT_S,
        lambda: [one.log.read_text() for one in instances],
    )
    return instances


def size(parts: Mapping[str, int], *names: str) -> int:
    return sum(parts.get(name, 0) for name in names)


def test_the_parts_of_a_guest_add_up_to_what_the_host_sees(
    make_vm: Callable[[str], VmPlatform], layer: Path, tmp_path: Path
) -> None:
    platform = make_vm("vm")
    with Lab():
        (one,) = holding(platform, layer, tmp_path)
        parts = platform.memory_parts(one)
        charged = platform.cgroup(one).memory_bytes()
        assert "MemTotal" not in one.log.read_text(), "what the guest tells is in no log"
        platform.stop(one)
    # The charge comes in batches of pages for each processor; nothing else may stay unattributed.
    assert abs(parts.get("unexplained", 0)) < 2 * MIB, parts
    assert parts.get("absent", 0) > -2 * MIB, "the host holds all that the guest says it uses"
    assert 16 * MIB <= parts["files"] < 20 * MIB, "the layer above is a tmpfs, and 16 MiB of a file are in it"
    assert parts["guest_free"] > 8 * MIB, "what was removed stays with the guest"
    assert parts["guest_kernel"] > 30 * MIB
    assert 0 < size(parts, *GUEST_PARTS) <= RAM
    assert size(parts, *EMULATOR_PARTS) > 10 * MIB
    assert "guest_ram" not in parts
    private = size(parts, *GUEST_PARTS, "translated_code", "emulator_heap", "emulator_stacks", "firmware")
    assert private < charged + 2 * MIB, "nothing is counted twice"


def test_equal_pages_of_two_guests_are_merged_and_ksm_is_as_before(
    make_vm: Callable[[str], VmPlatform], layer: Path, tmp_path: Path
) -> None:
    before = {path: path.read_text() for path in (ksm.KSM / "run", ksm.KSM / "pages_to_scan")}
    platform = make_vm("vm-ksm")
    assert {path: path.read_text() for path in before} == before
    with Lab():
        first, second = holding(platform, layer, tmp_path, count=2)
        assert (ksm.KSM / "run").read_text().strip() == "1"
        counters = ksm.wait_for_scans(2, 60)
        assert counters.saved_bytes > 20 * MIB
        # Which of them the two scans have come to is for the kernel, and on a busy host for the others, to say.
        until(lambda: all(platform.memory_parts(one).get("merged", 0) < -10 * MIB for one in (first, second)), 60)
        platform.stop(first)
        assert (ksm.KSM / "run").read_text().strip() == "1"
        platform.stop(second)
    assert {path: path.read_text() for path in before} == before


def test_without_ksm_a_guests_pages_are_not_offered_to_it(
    make_vm: Callable[[str], VmPlatform], layer: Path, tmp_path: Path
) -> None:
    platform = make_vm("vm-balloon")
    with Lab():
        (one,) = holding(platform, layer, tmp_path)
        smaps = Path(f"/proc/{platform.cgroup(one).pids()[0]}/smaps").read_text()
        assert not any("mg" in line.split() for line in smaps.splitlines() if line.startswith("VmFlags"))
        before = platform.memory_parts(one)
        platform.reclaim(one)
        after = platform.memory_parts(one)
        meminfo = platform._running[one.name].meminfo()
        platform.stop(one)
    assert meminfo is not None and available_bytes(meminfo) < 2 * KEEP_BYTES
    assert size(after, "guest_free", "guest_cache") < size(before, "guest_free", "guest_cache") - 4 * MIB
    assert after["files"] == pytest.approx(before["files"], abs=MIB)
    assert after["guest_kernel"] == pytest.approx(before["guest_kernel"], abs=4 * MIB)


def test_reported_pages_go_back_by_themselves(
    make_vm: Callable[[str], VmPlatform], layer: Path, tmp_path: Path
) -> None:
    platform = make_vm("vm-reporting")
    with Lab():
        (one,) = holding(platform, layer, tmp_path, ram=2 * RAM)
        first = last = platform.memory_parts(one)["guest_free"]
        deadline_s = time.monotonic() + 15  # the guest's kernel reports 2 s after pages have become free
        while last > first - 8 * MIB and time.monotonic() < deadline_s:
            time.sleep(0.25)
            last = platform.memory_parts(one)["guest_free"]
        platform.stop(one)
    assert last <= first - 8 * MIB, (first, last)


def test_huge_pages_are_the_guests_from_the_start_and_go_back_at_its_end(
    make_vm: Callable[[str], VmPlatform], layer: Path, tmp_path: Path
) -> None:
    before = OVERCOMMIT.read_text()
    platform = make_vm("vm-hugepages")
    with Lab():
        (one,) = holding(platform, layer, tmp_path)
        parts = platform.memory_parts(one)
        assert size(parts, *GUEST_PARTS) == RAM
        assert abs(parts.get("unexplained", 0)) < 2 * MIB
        assert platform.cgroup(one).memory_bytes() < sum(parts.values()) - 100 * MIB, "the cgroup does not see them"
        platform.stop(one)
    platform.close()
    assert OVERCOMMIT.read_text() == before
    huge = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Huge"))
    assert int(huge["HugePages_Total"]) == 0 or int(huge["HugePages_Free"]) == int(huge["HugePages_Total"])


def test_a_host_without_ksm_is_refused_before_anything_starts(
    make_vm: Callable[[str], VmPlatform], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ksm, "KSM", tmp_path / "absent")
    with pytest.raises(PrerequisiteError, match="no KSM"):
        make_vm("vm-ksm")
