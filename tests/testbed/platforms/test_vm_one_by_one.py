"""The machine of 1988: every instruction translated by itself, whatever accelerator the run has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.spec import Process, Resources, Spec
from testbed.lab import Lab
from testbed.platforms.protocol import Instance
from testbed.platforms.vm import VmPlatform
from testbed.qemu import accelerator
from testbed.qemu.accelerator import ONE_BY_ONE, Attempt

pytestmark = [pytest.mark.root, pytest.mark.vm]
TIMEOUT_S = 120.0
WAYS = (b"-singlestep", b"one-insn-per-tb=on")


def test_qemu_takes_it_and_the_kernel_starts(
    make_vm: Callable[[str], VmPlatform], layer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole boot, and the one before it that finds out how slow that is, would take half a minute each."""

    def untried(*arguments: object) -> Attempt:
        assert arguments[2] == ONE_BY_ONE
        return Attempt(ONE_BY_ONE, "not tried", 30.0)

    monkeypatch.setattr(accelerator, "_tried", {})
    monkeypatch.setattr(accelerator, "try_accelerator", untried)
    platform = make_vm("emulated-1988")
    assert platform.label == "emulated-1988 (TCG instruction by instruction, emulated)" and platform.emulated
    assert platform.patience >= 10, "limits of time follow it"
    with Lab():
        spec = Spec(Process(("sh",)), (str(layer),), "old", Resources(128 << 20, 1.0, 24))
        one = Instance("a0-old", 0, {"web": spec}, tmp_path / "old.log")
        platform.start(one)
        (pid,) = platform.cgroup(one).pids()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert any(way in command for way in WAYS) and b"tcg,thread=single" in command
        assert platform._running[one.name].console.wait_for("kernel_entry", TIMEOUT_S)
        platform.stop(one)
