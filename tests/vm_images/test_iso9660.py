"""The seed's file system: a volume by its label, and its files (that Linux mounts it, test_cloud of the platforms
shows)."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from runtime.errors import UsageError
from vm_images.iso9660 import SECTOR_BYTES, volume

FILES = {"user-data": b"#cloud-config\n", "launcher": bytes(range(256)) * 20, "empty": b""}


def read(image: bytes) -> dict[str, bytes]:
    """The files of the root directory, by the names that Linux shows, as the standard says to find them."""
    root = image[16 * SECTOR_BYTES + 156 :]
    sector, size = struct.unpack_from("<I", root, 2)[0], struct.unpack_from("<I", root, 10)[0]
    directory, found = image[sector * SECTOR_BYTES :][:size], {}
    while directory and directory[0]:
        start, length = struct.unpack_from("<I4xI", directory, 2)
        assert struct.unpack_from(">I4xI", directory, 6) == (start, length), "both byte orders say the same"
        name = directory[33 : 33 + directory[32]]
        if not directory[25] & 2:
            shown = name.decode().lower().removesuffix(".;1")
            found[shown] = image[start * SECTOR_BYTES :][:length]
        directory = directory[directory[0] :]
    return found


def test_files_come_out_as_they_went_in() -> None:
    assert read(volume("CIDATA", FILES)) == FILES


def test_it_is_found_by_its_label(tmp_path: Path) -> None:
    (tmp_path / "seed").write_bytes(volume("CIDATA", FILES))
    command = ["blkid", "-p", "-o", "export", str(tmp_path / "seed")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert {"TYPE=iso9660", "LABEL=CIDATA"} <= set(told.split())


def test_equal_files_give_equal_bits_of_whole_sectors() -> None:
    image = volume("CIDATA", FILES)
    assert image == volume("CIDATA", dict(reversed(FILES.items())))
    assert len(image) % SECTOR_BYTES == 0
    assert struct.unpack_from("<I", image, 16 * SECTOR_BYTES + 80)[0] * SECTOR_BYTES == len(image)


@pytest.mark.parametrize("name", ["User", "a.b", "a/b", "", "ü"])
def test_names_that_would_show_otherwise_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="small letters"):
        volume("CIDATA", {name: b""})


def test_more_files_than_a_sector_lists_are_refused() -> None:
    with pytest.raises(UsageError, match="too many"):
        volume("CIDATA", {f"file{number}": b"" for number in range(60)})
