"""What libvirt starts in QEMU's place: a plan that limits and enters the cgroup, then becomes QEMU."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runtime.cgroups import Hierarchies
from runtime.errors import PrerequisiteError
from runtime.plan import steps as s
from runtime.spec import Resources
from testbed.platforms.emulator import emulator_plan, ensure_emulator, find_qemu

V1 = Hierarchies({name: Path("/cg") / name for name in ("memory", "cpu", "cpuacct", "pids")}, None, frozenset())


def test_qemu_has_the_cpu_quota_and_no_memory_limit() -> None:
    plan = emulator_plan(Path("/usr/bin/qemu"), V1, "testbed/r/i", Resources(64 << 20, 0.5, 32))
    written = {step.path: step.data for step in plan.child if isinstance(step, s.Write)}
    assert written["/cg/cpu/testbed/r/i/cpu.cfs_quota_us"] == ("50000",)
    assert not any("memory.limit" in path or "pids.max" in path for path in written)
    assert written["/cg/memory/testbed/r/i/tasks"] == ("0",)


def test_libvirts_arguments_go_to_qemu() -> None:
    plan = emulator_plan(Path("/usr/bin/qemu"), V1, "testbed/r/i", Resources())
    assert plan.child[-1] == s.Exec(("/usr/bin/qemu",), append_arguments=True)


def test_without_an_instances_plan_it_is_just_qemu(tmp_path: Path) -> None:
    emulator = ensure_emulator(tmp_path, Path("/bin/echo"))
    done = subprocess.run([emulator, "-S", "-machine none"], capture_output=True, text=True, check=True)
    assert done.stdout == "-S -machine none\n"


def test_it_is_kept_until_qemu_changes(tmp_path: Path) -> None:
    qemu = tmp_path / "qemu"
    qemu.touch()
    first = ensure_emulator(tmp_path / "store", qemu)
    assert ensure_emulator(tmp_path / "store", qemu) == first
    os.utime(qemu, ns=(0, 0))
    assert ensure_emulator(tmp_path / "store", qemu) != first


def test_a_host_without_qemu_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrerequisiteError) as raised:
        find_qemu()
    assert "install qemu-system-x86" in raised.value.hint
