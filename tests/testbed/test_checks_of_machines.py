"""What virtual machines need: the accelerators that were tried, the kernel that is given, each kind's own needs."""

from __future__ import annotations

import calendar
import re
import shutil
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.home import store_root
from testbed import checks_of_machines
from testbed.checks_of_machines import check_accelerators, check_kvm, check_variants, judge_attempts
from testbed.host import kvm
from testbed.host.kvm import Kvm
from testbed.qemu.accelerator import CANDIDATES, Attempt
from testbed.qemu.variants import VARIANTS
from tests.vm_images.test_own_kernel import vmlinux
from vm_images.kernel import GuestKernel, find_stored_guest_kernel
from vm_images.minimal_kernel import FRAGMENT
from vm_images.own_kernel import CONFIG

_IMPORTED_S = time.time()


def test_every_accelerator_that_was_tried_is_shown_with_when_that_was() -> None:
    (untried,) = judge_attempts((), "")
    assert untried.ok and not untried.required
    at = "2026-01-02 03:04 UTC"
    translated = Attempt("tcg", "booted in 2 s", 2.0, at=at), Attempt("tcg-single", "booted in 3 s", 3.0, at=at)
    kvm, tcg, single = judge_attempts((Attempt("kvm", "it hangs", at=at), *translated), "")
    assert (kvm.ok, kvm.required, kvm.detail) == (False, False, f"it hangs (tried {at})")
    assert (tcg.ok, tcg.detail) == (True, f"booted in 2 s (tried {at}); guests get this one")
    assert (single.ok, single.detail) == (True, f"booted in 3 s (tried {at})")
    fast = (Attempt("kvm", "booted in 0.8 s", 0.8, at=at), *translated)
    assert judge_attempts(fast, "")[0].detail == f"booted in 0.8 s (tried {at}); guests get this one"
    assert not judge_attempts(fast, "it may not open it")[0].ok
    *_, unknown = judge_attempts(translated, "")
    assert not unknown.ok and "tries it anew" in unknown.detail


@pytest.mark.root
@pytest.mark.vm
def test_as_root_a_guest_is_booted_to_find_out() -> None:
    if find_stored_guest_kernel(store_root() / "guest") is None:
        pytest.skip("no guest kernel has been fetched")
    results = {check.name: check for check in check_accelerators()}
    assert set(results) == {f"accelerator {name}" for name in CANDIDATES}
    tried_at = re.search(r"\(tried (.*) UTC\)", results["accelerator kvm"].detail)
    assert tried_at is not None
    tried_s = calendar.timegm(time.strptime(tried_at[1], "%Y-%m-%d %H:%M"))
    assert tried_s > _IMPORTED_S - 60, "KVM's verdict is of this process, and told to the minute"


@pytest.mark.root
@pytest.mark.vm
def test_a_kernel_that_is_given_is_the_one_that_boots(home: Path, tmp_path: Path) -> None:
    stored = find_stored_guest_kernel(home / "guest")
    assert stored is not None
    shutil.copy2(stored.image, tmp_path / "mine")
    described, *tried = check_accelerators(str(tmp_path / "mine"))
    assert described.name == "guest kernel" and described.detail.startswith(f"mine: {stored.release}, entered as PVH")
    booted = {check.name: check.ok for check in tried}
    assert booted["accelerator tcg"] and booted["accelerator tcg-single"]
    (tmp_path / "mine").write_bytes(b"")
    with pytest.raises(UsageError, match="it is empty"):
        check_accelerators(str(tmp_path / "mine"))


@pytest.mark.root
def test_a_kernel_that_cannot_boot_is_an_answer_too(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an ELF kernel by all its headers, with nothing behind them."""
    monkeypatch.setattr("testbed.qemu.accelerator.TIME_LIMIT_S", 0.5)
    (tmp_path / "mine").write_bytes(vmlinux())
    (check,) = check_accelerators(str(tmp_path / "mine"))
    assert (check.name, check.ok, check.required) == ("accelerator", False, False)
    assert "no guest boots" in check.detail


def test_what_a_kernel_of_ones_own_lacks_is_told(tmp_path: Path) -> None:
    kernel = GuestKernel(tmp_path, "6.9", "mine", "sha256:12", True, (), own=True)
    silent = checks_of_machines._describe(kernel)
    assert silent.ok and "does not hold its configuration" in silent.detail
    (tmp_path / CONFIG).write_text(FRAGMENT.read_text())
    whole = checks_of_machines._describe(kernel)
    assert whole.ok and "it has all that machines need" in whole.detail and "PVM" not in whole.detail
    (tmp_path / CONFIG).write_text(FRAGMENT.read_text().replace("CONFIG_BRIDGE=y", "CONFIG_PVM_GUEST=y"))
    lacking = checks_of_machines._describe(replace(kernel, pvh=False))
    assert not lacking.ok and "entered as bzImage" in lacking.detail
    assert "built for PVM; not for vm-containers" in lacking.detail and lacking.fix == "build in CONFIG_BRIDGE"


@pytest.mark.parametrize(("kind", "ok"), [("intel", True), ("amd", True), ("pvm", False), ("none", False)])
def test_a_kvm_in_software_is_no_hardware(kind: kvm.Kind, ok: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "detect", lambda: Kvm(kind, True, "words", "fix"))
    check = check_kvm()
    assert (check.ok, check.required, check.detail) == (ok, False, "words")


def test_every_kind_of_machine_has_a_line() -> None:
    checks = check_variants()
    assert [check.name for check in checks] == list(VARIANTS)
    assert not any(check.required for check in checks)
    assert all(check.ok or check.fix for check in checks), "what is missing can be had"
