"""The seed's file system: a volume by its label, and its files (that Linux mounts it, test_cloud of the platforms
shows)."""

from __future__ import annotations

import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import UsageError
from vm_images.iso9660 import SECTOR_BYTES, make_volume

FILES = {"user-data": b"#cloud-config\n", "launcher": bytes(range(256)) * 20, "empty": b""}
DESCRIPTOR = 16 * SECTOR_BYTES


def records(image: bytes) -> Iterator[bytes]:
    """The records of the root directory's files, as the standard says to find them (ECMA-119, 9.1)."""
    root = image[DESCRIPTOR + 156 :]
    sector, size = struct.unpack_from("<I", root, 2)[0], struct.unpack_from("<I", root, 10)[0]
    directory, at = image[sector * SECTOR_BYTES :][:size], 0
    while at < len(directory):
        if not directory[at]:
            at += SECTOR_BYTES - at % SECTOR_BYTES  # a record does not cross into the next sector
            continue
        record = directory[at : at + directory[at]]
        if not record[25] & 2:
            yield record
        at += len(record)


def extensions(record: bytes) -> dict[bytes, bytes]:
    """What Rock Ridge adds to a record, by its signature (SUSP 1.12, 4.2)."""
    rest, found = record[33 + record[32] + (record[32] + 1) % 2 :], {}
    while len(rest) >= 4:
        found[rest[:2]] = rest[4 : rest[2]]
        rest = rest[rest[2] :]
    return found


def read(image: bytes) -> dict[str, bytes]:
    """The files of the root directory, by the names that Linux shows."""
    found = {}
    for record in records(image):
        start, length = struct.unpack_from("<I4xI", record, 2)
        assert struct.unpack_from(">I4xI", record, 6) == (start, length), "both byte orders say the same"
        found[extensions(record)[b"NM"][1:].decode()] = image[start * SECTOR_BYTES :][:length]
    return found


def test_files_come_out_as_they_went_in() -> None:
    assert read(make_volume("CIDATA", FILES)) == FILES


def test_every_file_can_be_read_and_executed_by_everybody() -> None:
    for record in records(make_volume("CIDATA", FILES)):
        mode, _, links, _, owner, _, group, _ = struct.unpack_from("<I4sI4sI4sI4s", extensions(record)[b"PX"])
        assert (mode, links, owner, group) == (0o100555, 1, 0, 0)


def test_it_is_found_by_its_label(tmp_path: Path) -> None:
    (tmp_path / "seed").write_bytes(make_volume("CIDATA", FILES))
    command = ["blkid", "-p", "-o", "export", str(tmp_path / "seed")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert {"TYPE=iso9660", "LABEL=CIDATA"} <= set(told.split())


def test_equal_files_give_equal_bits_of_whole_sectors() -> None:
    image = make_volume("CIDATA", FILES)
    assert image == make_volume("CIDATA", dict(reversed(FILES.items())))
    assert len(image) % SECTOR_BYTES == 0
    assert struct.unpack_from("<I", image, DESCRIPTOR + 80)[0] * SECTOR_BYTES == len(image)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
def test_the_bits_are_the_same_at_any_time_and_place(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = FILES | {"x" * 120: b"its name goes on in another place"}
    image = make_volume("CIDATA", files)
    assert image[DESCRIPTOR + 813 :][: 4 * 17] == b"2000010100000000\0" * 2 + b"0" * 16 + b"\0" + b"2000010100000000\0"
    try:
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("TZ", zone)
            time.tzset()
            for moment_s in (1.0, 1e9 + 0.5, 4e9):
                elsewhere.setattr(time, "time", lambda moment_s=moment_s: moment_s)
                assert make_volume("CIDATA", files) == image
    finally:
        time.tzset()


@pytest.mark.parametrize("name", ["User", "a.b", "ü", "x" * 120])
def test_names_are_shown_as_they_are(name: str) -> None:
    assert read(make_volume("CIDATA", {name: b"content"})) == {name: b"content"}


@pytest.mark.parametrize("name", ["a/b", ""])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot make a volume 'CIDATA' of"):
        make_volume("CIDATA", {name: b""})


def test_a_label_that_is_too_long_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot make a volume"):
        make_volume("L" * 33, FILES)


def test_more_files_than_a_sector_lists_come_out() -> None:
    files = {f"file{number}": b"%d" % number for number in range(200)}
    assert read(make_volume("CIDATA", files)) == files
