"""What is known outside of the reference machine only, as the manifest records it."""

from __future__ import annotations

from testbed.machine.reference import NAME, _relabel
from testbed.qemu.accelerator import Verdict
from testbed.results import counts_instructions


def test_a_label_does_not_tell_of_emulation_that_containers_have_too() -> None:
    label = Verdict("kvm", "it booted", hardware=True).label("vm", "qemu")
    assert label == "vm (KVM on an emulated host)"
    relabelled = _relabel({"vm": {"label": label, "accelerator": "kvm"}, "container": {}})
    assert relabelled["vm"] == {"label": "vm (KVM)", "accelerator": "kvm"}
    assert relabelled["container"]["label"] == "container"


def test_a_manifest_says_whether_its_seconds_are_instructions() -> None:
    assert counts_instructions({"machine": {"kind": NAME}})
    assert not counts_instructions({"machine": None}) and not counts_instructions({})
