"""What the reference machine does before its experiment: here, where nobody has booted it, what it lacks for guests."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from testbed.machine.inside import make_host
from vm_images.reference import System


@pytest.mark.parametrize(
    ("system", "device", "why"), [("kvm", "/dev/kvm", "AMD's SVM"), ("virtualbox", "/dev/vboxdrv", "module vboxdrv")]
)
def test_a_machine_without_the_device_that_makes_guests_says_why(system: System, device: str, why: str) -> None:
    if Path(device).exists():
        pytest.skip(f"this host has {device}")
    with pytest.raises(PrerequisiteError, match=f"has no {device}: .*{why}") as raised:
        make_host(system)
    assert raised.value.hint
