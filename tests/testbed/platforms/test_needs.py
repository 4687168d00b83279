"""What each kind of machine needs: nothing is missing on a host that has all, and each thing is missed by its kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from testbed.host.kvm import Kvm
from testbed.platforms import needs
from testbed.platforms.needs import Host, find_kvm_problem, find_needs, look_at_host
from testbed.qemu.accelerator import Attempt
from testbed.qemu.variants import VARIANTS
from vm_images.kernel import GuestKernel

KERNEL = GuestKernel(Path("/nowhere"), "6.1", "linux-image", "6.1-1", True, (), ("virtio_balloon.ko",))
WHOLE = Host(
    frozenset(("qemu-system-x86_64", "qemu-img", "mkfs.erofs", "mke2fs", "debugfs", "mmdebstrap")),
    frozenset(("pc", "q35", "pc-q35-7.2", "microvm")),
    KERNEL,
    replace(KERNEL, release="6.1-minimal"),
    True,
    True,
)


def lacks(host: Host) -> dict[str, list[str]]:
    missing = {name: [need for need in find_needs(one, host) if not need.there] for name, one in VARIANTS.items()}
    assert all(need.fix for each in missing.values() for need in each)
    return {name: [need.words for need in each] for name, each in missing.items() if each}


def test_a_host_that_has_all_lacks_nothing() -> None:
    assert lacks(WHOLE) == {}
    assert lacks(replace(WHOLE, kernel=None, cloud_made=False, container_host_made=False)) == {}, "a run makes these"
    assert lacks(replace(WHOLE, machines=None)) == {}, "a QEMU that does not say is not accused"


@pytest.mark.parametrize(
    ("host", "who"),
    [
        (replace(WHOLE, programs=WHOLE.programs - {"qemu-system-x86_64"}), set(VARIANTS)),
        (replace(WHOLE, machines=frozenset(("q35",))), {"vm-micro"}),
        (replace(WHOLE, minimal=None), {"vm-minimal"}),
        (replace(WHOLE, programs=WHOLE.programs - {"qemu-img"}), {"vm-disk", "vm-cloud"}),
        (replace(WHOLE, programs=WHOLE.programs - {"debugfs"}), {"vm-disk"}),
        (replace(WHOLE, programs=WHOLE.programs - {"mkfs.erofs"}), set(VARIANTS) - {"vm-disk"}),
        (replace(WHOLE, programs=WHOLE.programs - {"mmdebstrap"}), {"vm-cloud"}),
        (replace(WHOLE, kvm_problem="no guest booted"), {"hardware-2006"}),
        (replace(WHOLE, ksm_problem="the kernel has no KSM"), {"vm-ksm"}),
        (replace(WHOLE, hugepages_problem="the kernel has no huge pages of 2 MiB"), {"vm-hugepages"}),
    ],
)
def test_what_is_missing_is_missed_by_who_needs_it(host: Host, who: set[str]) -> None:
    assert set(lacks(host)) == who


def test_this_host_is_looked_at_without_making_anything(tmp_path: Path) -> None:
    found = look_at_host(tmp_path / "store")
    assert (found.kernel, found.minimal, found.cloud_made, found.container_host_made) == (None, None, False, False)
    assert not (tmp_path / "store").exists()
    assert found.machines is None or {"q35", "microvm"} <= found.machines


def test_huge_pages_need_the_kernel_and_its_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "_HUGE_PAGES", tmp_path / "absent")
    assert needs.find_hugepages_problem() == "the kernel has no huge pages of 2 MiB"
    monkeypatch.setattr(needs, "_HUGE_PAGES", tmp_path)
    monkeypatch.setattr(needs, "OVERCOMMIT", tmp_path / "absent")
    assert "cannot be written to" in needs.find_hugepages_problem()


def test_hardware_is_known_by_the_device_and_by_what_worked_last() -> None:
    """A /dev/kvm alone proves nothing, and before anything was tried nothing speaks against it."""
    device, translated = Kvm("amd", False, "it opens"), Attempt("tcg", "", 2.0)
    assert find_kvm_problem(Kvm("none", False, "no such file"), ()) == "no such file"
    assert find_kvm_problem(device, ()) == ""
    assert "no guest booted" in find_kvm_problem(device, (translated,))
    assert "no faster" in find_kvm_problem(device, (translated, Attempt("kvm", "", 9.0)))
    assert find_kvm_problem(device, (translated, Attempt("kvm", "", 0.5))) == ""
