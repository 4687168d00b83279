"""A disk that boots a guest: GRUB finds the kernel and both parts of its RAM disk, under a PC's own firmware."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from runtime.home import store_root
from runtime.plan.encode import encode
from runtime.plan.steps import LogLine, Plan
from vm_images.boot_disk import DISK_BYTES, find_grub, make_own_part, make_shared_part
from vm_images.guest import Guest, scsi_guest_of
from vm_images.initramfs import make_plan_archive
from vm_images.kernel import GuestKernel, ensure_kernel
from vm_images.master_boot_record import FIRST_PARTITION_SECTOR, SECTOR_BYTES

pytestmark = [pytest.mark.root, pytest.mark.network]

_BOOT_S = 120


@pytest.fixture
def kernel() -> GuestKernel:
    """The distribution's kernel, where it and GRUB can be had."""
    try:
        find_grub()
        return ensure_kernel(store_root() / "guest")
    except PrerequisiteError as error:
        pytest.skip(f"no disk can be made: {error}")


def test_the_partition_is_an_archive_in_two_parts(kernel: GuestKernel) -> None:
    guest = scsi_guest_of(kernel)
    shared, own = make_shared_part(find_grub(), kernel.bzimage, guest), make_own_part(b"plan")
    assert not len(shared) % SECTOR_BYTES and not len(own) % SECTOR_BYTES
    with tarfile.open(fileobj=io.BytesIO((shared + own)[FIRST_PARTITION_SECTOR * SECTOR_BYTES :])) as archive:
        contents = {one.name: stream.read() for one in archive if (stream := archive.extractfile(one)) is not None}
    assert contents == {"kernel": kernel.bzimage.read_bytes(), "shared": guest.base, "own": b"plan"}


@pytest.mark.vm
@pytest.mark.parametrize("memory", ["80M", "4G"])
def test_a_bios_boots_it_and_the_launcher_finds_its_plan(kernel: GuestKernel, memory: str, tmp_path: Path) -> None:
    """Also with the least memory that a machine of the testbed's has, and with more than GRUB can reach."""
    program = shutil.which("qemu-system-x86_64")
    assert program is not None
    guest: Guest = scsi_guest_of(kernel)
    own = make_own_part(make_plan_archive(encode(Plan(child=(LogLine("the plan is performed"),)))))
    disk = tmp_path / "disk"
    disk.write_bytes(make_shared_part(find_grub(), kernel.bzimage, guest) + own)
    with disk.open("r+b") as stream:
        stream.truncate(DISK_BYTES)
    command = [
        *(program, "-accel", "tcg", "-m", memory, "-nodefaults", "-display", "none", "-no-reboot"),
        *("-serial", "stdio", "-drive", f"file={disk},format=raw"),
    ]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=_BOOT_S
    )
    assert "Linux version" in done.stdout and "the plan is performed" in done.stdout


def test_without_grub_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrerequisiteError, match="no grub-mkimage on the PATH") as raised:
        find_grub()
    assert "grub-pc-bin" in raised.value.hint
    program = tmp_path / "grub-mkimage"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(PrerequisiteError, match=f"no boot.img in {tmp_path}"):
        find_grub(tmp_path)
