"""The kind of KVM, by what hosts of each kind show, and by what this one does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from testbed.host import kvm
from testbed.host.kvm import PVM_HINT, Seen, detect, judge, look

EPT: Mapping[str, str] = {"ept": "Y", "nested": "Y"}
NEITHER = "the processor shows neither vmx nor svm)"


def seen(*flags: str, api: int | None = 12, problem: str = "", **modules: Mapping[str, str]) -> Seen:
    return Seen(frozenset(flags), modules, api, problem)


@pytest.mark.parametrize(
    ("shown", "kind", "nested", "words"),
    [
        (seen("vmx", kvm_intel=EPT), "intel", False, "Intel's VMX (module kvm_intel; the processor shows vmx)"),
        (seen("svm", kvm_amd={"npt": "1"}), "amd", False, "AMD's SVM (module kvm_amd; the processor shows svm)"),
        (seen("vmx", "hypervisor", kvm_intel=EPT), "intel", True, "Intel's VMX, nested"),
        (seen("svm", "hypervisor", kvm_amd={}), "amd", True, "AMD's SVM, nested"),
        (seen("vmx", kvm_intel={"ept": "N"}), "intel", False, "without EPT, which makes it slow"),
        (seen("svm", kvm_amd={"npt": "0"}), "amd", False, "without NPT, which makes it slow"),
        (seen("hypervisor", kvm_pvm={}), "pvm", True, f"PVM, a KVM in software (module kvm_pvm; {NEITHER}"),
        (seen(kvm_pvm={}), "pvm", False, NEITHER),
        (seen("hypervisor", kvm_intel=EPT, kvm_pvm={}), "pvm", True, "PVM"),
        (seen("hypervisor"), "software", True, f"of an unknown kind (no module of KVM's is shown; {NEITHER}"),
        (seen("vmx", kvm_intel=EPT, kvm_pvm={}), "unknown", False, "of an unknown kind (module kvm_intel, kvm_pvm"),
        (seen("vmx"), "unknown", False, "no module of KVM's is shown; the processor shows vmx"),
    ],
)
def test_a_kind_is_known_by_what_is_shown(shown: Seen, kind: str, nested: bool, words: str) -> None:
    found = judge(shown)
    assert (found.kind, found.nested) == (kind, nested)
    assert words in found.words
    assert found.fix == (PVM_HINT if kind == "pvm" else "")


@pytest.mark.parametrize(
    ("shown", "fix"),
    [
        (seen("vmx", api=None, problem="/dev/kvm: No such file or directory"), "load kvm_intel"),
        (seen("svm", api=None, problem="/dev/kvm: No such file or directory"), "load kvm_amd"),
        (seen("hypervisor", api=None, problem="x"), "the hypervisor below would have to offer nested"),
        (seen(api=None, problem="x"), "in the firmware"),
        (seen("vmx", api=11, kvm_intel=EPT), "load kvm_intel"),
    ],
)
def test_a_device_that_is_no_use_says_what_would_be(shown: Seen, fix: str) -> None:
    found = judge(shown)
    assert found.kind == "none" and fix in found.fix
    if shown.api == 11:
        assert found.words == "/dev/kvm has API version 11, not 12"


def test_what_cannot_be_opened_is_told_from_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "DEVICE", tmp_path / "kvm")
    assert "No such file" in detect().words
    (tmp_path / "kvm").touch()
    assert "opens, but it is no KVM" in detect().words
    assert "join the group" in judge(Seen(api=None, problem="/dev/kvm: Permission denied", forbidden=True)).fix


def test_this_hosts_own_is_as_its_files_say() -> None:
    found = look()
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    assert found.flags == set(flags.partition(":")[2].split())
    assert set(found.modules) == {name for name in kvm._MODULES if Path("/sys/module", name).exists()}
    assert (found.api == 12) is os.access("/dev/kvm", os.R_OK | os.W_OK)
    assert detect().kind != "none" or found.problem
