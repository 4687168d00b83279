"""The accelerator is decided by what QEMU does, here with stand-ins that end, hang or boot as QEMU would."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from testbed.platforms.accelerator import KVM_DEVICE, Verdict, probe_command, probe_kvm, verdict
from vm_images.guest import Guest
from vm_images.kernel import GuestKernel

pytestmark = pytest.mark.root
needs_device = pytest.mark.skipif(
    not os.access(KVM_DEVICE, os.R_OK | os.W_OK), reason=f"{KVM_DEVICE} cannot be opened, so nothing is probed"
)


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    kernel = GuestKernel(tmp_path, "6.1", "linux-image", "6.1-1", True, ())
    return Guest(kernel, b"", (), "digest")


def program(folder: Path, script: str) -> Path:
    path = folder / "qemu"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@needs_device
def test_a_guest_that_gets_to_its_first_process_means_kvm(guest: Guest, tmp_path: Path) -> None:
    qemu = program(tmp_path, "echo 'Linux version'; echo 'testbed: first userspace'; sleep 60")
    found = probe_kvm(qemu, guest)
    assert (found.accelerator, found.label("vm")) == ("kvm", "vm (KVM)")
    assert found.boot_s is not None and found.boot_s < 10


@needs_device
def test_qemu_that_aborts_means_tcg_and_says_why(guest: Guest, tmp_path: Path) -> None:
    found = probe_kvm(program(tmp_path, "echo 'kvm_buf_set_msrs: Assertion failed.' >&2; exit 134"), guest)
    assert (found.accelerator, found.label("vm")) == ("tcg", "vm (TCG, emulated)")
    assert "kvm_buf_set_msrs: Assertion failed." in found.reason


@needs_device
def test_a_guest_that_hangs_means_tcg_after_the_time_limit(guest: Guest, tmp_path: Path) -> None:
    began_s = time.monotonic()
    found = probe_kvm(program(tmp_path, "echo 'Linux version 6.1'; exec sleep 60"), guest, time_limit_s=0.3)
    assert time.monotonic() - began_s < 5
    assert found.accelerator == "tcg"
    assert "0.3 s" in found.reason and "Linux version 6.1" in found.reason


@needs_device
def test_the_verdict_is_kept_until_qemu_changes(guest: Guest, tmp_path: Path) -> None:
    first = verdict(tmp_path / "store", program(tmp_path, "echo one; exit 1"), guest)
    qemu = tmp_path / "qemu"
    status = qemu.stat()
    assert verdict(tmp_path / "store", qemu, guest) == first
    os.utime(qemu, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    qemu.write_text("#!/bin/sh\necho two; exit 1\n")
    assert "two" in verdict(tmp_path / "store", qemu, guest).reason


def test_the_probe_has_the_guests_machine_and_command_line(tmp_path: Path) -> None:
    command = " ".join(probe_command(Path("/usr/bin/qemu"), tmp_path / "vmlinux", tmp_path / "initrd"))
    assert "-accel kvm -machine q35 -cpu max" in command
    assert "console=ttyS0" in command


def test_an_emulated_guest_is_always_called_so() -> None:
    assert Verdict("tcg", "no /dev/kvm").label("vm") == "vm (TCG, emulated)"
