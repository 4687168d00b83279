"""Disks of several files: what their descriptions say, as QEMU's own tools read them, and what they cannot say."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from uuid import UUID

import pytest

from runtime.errors import UsageError
from vm_images.vmdk import SECTOR_BYTES, Extent, describe_disk

IDENTITY = UUID(int=7)


def test_the_files_follow_each_other_and_zeros_them(tmp_path: Path) -> None:
    parts = [b"a" * 2 * SECTOR_BYTES, b"b" * SECTOR_BYTES]
    extents = []
    for number, part in enumerate(parts):
        file = tmp_path / str(number)
        file.write_bytes(part)
        extents.append(Extent(len(part), file))
    described = tmp_path / "disk.vmdk"
    described.write_text(describe_disk((*extents, Extent(5 * SECTOR_BYTES)), IDENTITY))
    assert f'ddb.uuid.image="{IDENTITY}"' in described.read_text()
    raw = tmp_path / "raw"
    # qemu-img passes over zeros, and over files that are only to be read.
    assert "\nRW 5 ZERO\n" in described.read_text()
    described.write_text(described.read_text().replace("RDONLY", "RW"))
    command = [shutil.which("qemu-img") or "qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(described), str(raw)]
    subprocess.run(command, check=True, capture_output=True)
    assert raw.read_bytes() == b"".join(parts)


@pytest.mark.parametrize(
    ("extent", "said"),
    [
        (Extent(100), "not whole sectors"),
        (Extent(0), "not whole sectors"),
        (Extent(512, Path('/a"b')), "a VMDK cannot name it"),
        (Extent(512, Path("/a\nb")), "a VMDK cannot name it"),
    ],
    ids=lambda value: "",
)
def test_what_a_description_cannot_hold_is_refused(extent: Extent, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        describe_disk((extent,), IDENTITY)
