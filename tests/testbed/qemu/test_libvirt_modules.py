"""What libvirt loads late is known to it before it learns of an emulator."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from testbed.qemu.connection import open_embedded
from testbed.qemu.libvirt_modules import note_storage_module


@pytest.mark.root
@pytest.mark.vm
def test_an_open_driver_has_taken_note_of_the_storage_module(scratch: Path, tmp_path: Path) -> None:
    with open_embedded(scratch / "libvirt", tmp_path / "cache"):
        if not note_storage_module():
            pytest.skip("this libvirt has no storage module of its own")
        (module,) = Path("/usr/lib").glob("*/libvirt/storage-file/libvirt_storage_file_fs.so")
        last = ctypes.CDLL("libvirt.so.0").virGetSelfLastChanged
        last.restype = ctypes.c_int64
        assert last() >= int(module.stat().st_ctime)
