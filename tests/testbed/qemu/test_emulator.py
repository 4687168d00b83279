"""What libvirt starts in QEMU's place: a plan that limits and enters the cgroup, then becomes QEMU."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.cgroups import Cgroup
from runtime.errors import PrerequisiteError
from runtime.plan import steps as s
from runtime.spec import Resources
from testbed.qemu.account import Account, find_emulator_account
from testbed.qemu.emulator import emulator_plan, ensure_emulator, enter_cgroup, find_qemu, make_cgroup


@pytest.mark.root
def test_qemu_has_the_cpu_quota_and_no_memory_limit(cgroup_parent: str) -> None:
    cgroup = Cgroup(f"{cgroup_parent}/vm")
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            make_cgroup(cgroup, Resources(64 << 20, 0.5, 32))
            enter_cgroup(cgroup, process.pid)
            assert cgroup.pids() == (process.pid,)
            assert cgroup.file("cpu", "cpu.cfs_quota_us", "cpu.max").read_text().split()[0] == "50000"
            limit = cgroup.file("memory", "memory.limit_in_bytes", "memory.max").read_text().strip()
            assert limit == "max" or int(limit) > 1 << 60
        finally:
            cgroup.kill()
            cgroup.remove()


@pytest.mark.root
@pytest.mark.parametrize(("cpus", "quota"), [(1.0, "150000"), (None, "")])
def test_qemus_own_threads_may_have_a_share_on_top(cpus: float | None, quota: str, cgroup_parent: str) -> None:
    cgroup = Cgroup(f"{cgroup_parent}/vm")
    make_cgroup(cgroup, Resources(64 << 20, cpus), 0.5)
    try:
        set_to = cgroup.file("cpu", "cpu.cfs_quota_us", "cpu.max").read_text().split()[0]
        assert set_to == quota or (not quota and set_to in ("-1", "max"))
    finally:
        cgroup.remove()


def test_libvirts_arguments_go_to_qemu() -> None:
    plan = emulator_plan(Path("/usr/bin/qemu"), Path("/run/admission"), account())
    become = s.SetUser(1000, 995, (995, 4))
    assert plan.child == (
        s.RequestAdmission("/run/admission"),
        become,
        s.Exec(("/usr/bin/qemu",), append_arguments=True),
    )


def test_a_daemons_becomes_the_guests_user_once_it_is_in_the_lab() -> None:
    plan = emulator_plan(Path("/usr/bin/qemu"), Path("/run/admission"), account(), namespace="/proc/1/ns/net")
    *_, join, become, execution = plan.child
    assert isinstance(join, s.JoinNamespace) and isinstance(execution, s.Exec)
    assert become == s.SetUser(1000, 995, (995, 4))


def account() -> Account:
    return replace(find_emulator_account(), uid=1000, gids=(995, 4))


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
