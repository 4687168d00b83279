"""The emulator is watched: what its machine says is passed on, and however it ends, nothing of it is left."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup, hierarchies
from runtime.errors import WorkloadError
from runtime.lease import cgroup_name, lease
from testbed.machine import emulation, emulator
from testbed.machine.emulation import emulate
from testbed.machine.inputs import Inputs

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")


@pytest.fixture
def run_id() -> str:
    return f"test-{secrets.token_hex(3)}"


def inputs(folder: Path, script: str) -> Inputs:
    """A machine whose emulator is a shell script: what is tested is who watches it."""
    root = folder / "root"
    for directory in ("bin", "usr/lib/testbed-qemu", "dev", "proc", "sys", "etc"):
        (root / directory).mkdir(parents=True)
    shutil.copy2("/bin/busybox", root / "bin" / "busybox")
    program = root / emulator.QEMU.lstrip("/")
    program.write_text(f"#!/bin/busybox sh\n{script}\n")
    program.chmod(0o755)
    (folder / "machine").mkdir()
    return Inputs((root,), folder / "machine", 2 << 20, {})


def test_what_the_machine_says_is_passed_on_with_its_time(tmp_path: Path, run_id: str) -> None:
    script = "echo 'testbed: time: 5'; echo noise; echo 'testbed: progress: trial 1'; echo -n results >&0"
    said: list[str] = []
    with lease(run_id) as scratch:
        done = emulate(inputs(tmp_path, script), run_id, scratch / "console", scratch / "results", said.append)
        assert (scratch / "results").read_bytes()[:8] == b"results\0"
        assert (scratch / "results").stat().st_size == emulator.RESULTS_BYTES
    assert said == ["[     5 s] trial 1"]
    assert done.machine_s == 5 and done.real_s > 0
    assert not Cgroup(cgroup_name(run_id, "emulator"), hierarchies()).exists()


def test_a_machine_that_fails_tells_its_exit_code_and_last_lines(tmp_path: Path, run_id: str) -> None:
    script = "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo line $i; done; printf 'evil \\033[2J\\n'; exit 3"
    with lease(run_id) as scratch, pytest.raises(WorkloadError) as raised:
        emulate(inputs(tmp_path, script), run_id, scratch / "console", scratch / "results", print)
    assert "ended with the status 3" in raised.value.message
    assert "line 100" in raised.value.hint and "line 2\n" not in raised.value.hint and "\x1b" not in raised.value.hint
    assert not Cgroup(cgroup_name(run_id, "emulator"), hierarchies()).exists()


def test_a_machine_that_says_nothing_is_ended(tmp_path: Path, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "SILENCE_S", 1.0)
    script = "echo last words; exec /bin/busybox sleep 1000"
    with lease(run_id) as scratch, pytest.raises(WorkloadError) as raised:
        emulate(inputs(tmp_path, script), run_id, scratch / "console", scratch / "results", print)
    assert "has said nothing for 1 s" in raised.value.message and "last words" in raised.value.hint
    assert not Cgroup(cgroup_name(run_id, "emulator"), hierarchies()).exists()


def test_an_interruption_ends_the_emulator(tmp_path: Path, run_id: str) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    script = "echo 'testbed: progress: x'; exec /bin/busybox sleep 1000"
    with lease(run_id) as scratch, pytest.raises(KeyboardInterrupt):
        emulate(inputs(tmp_path, script), run_id, scratch / "console", scratch / "results", interrupt)
    assert not Cgroup(cgroup_name(run_id, "emulator"), hierarchies()).exists()


def test_the_emulator_has_no_rights(tmp_path: Path, run_id: str) -> None:
    script = "/bin/busybox id -u; /bin/busybox grep CapEff /proc/self/status; exit 1"
    with lease(run_id) as scratch, pytest.raises(WorkloadError) as raised:
        emulate(inputs(tmp_path, script), run_id, scratch / "console", scratch / "results", print)
    assert "65533" in raised.value.hint and "0000000000000000" in raised.value.hint
