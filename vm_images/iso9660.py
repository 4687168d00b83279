"""A CD-ROM's file system (ECMA-119, "ISO 9660") of a few files in its root directory, the same bits for the same files.

No extensions: Linux shows plain names in small letters and every file as readable and executable
(Documentation/filesystems/isofs.rst: map=normal, mode), which is what a cloud-init seed and a program need.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from runtime.errors import UsageError

SECTOR_BYTES = 2048
# 16 sectors of system area, primary descriptor, terminator, two path tables, the root directory; then the files.
_DESCRIPTOR, _PATH_TABLES, _ROOT, _FILES = 16, (18, 19), 20, 21
_ROOT_NAME, _PARENT_NAME = b"\0", b"\1"
_DIRECTORY = 2
# Years since 1900, month, day, hour, minute, second, zone; and the long form. Fixed: 1 January 2000, 00:00 UTC.
_RECORDED = bytes((100, 1, 1, 0, 0, 0, 0))
_STAMP, _NO_STAMP = b"2000010100000000\0", b"0" * 16 + b"\0"


def _both(form: str, value: int) -> bytes:
    """A number in both byte orders, little-endian first (7.2.3, 7.3.3)."""
    return struct.pack(f"<{form}", value) + struct.pack(f">{form}", value)


def _record(name: bytes, sector: int, size: int, flags: int = 0) -> bytes:
    """A directory record (9.1)."""
    body = _both("I", sector) + _both("I", size) + _RECORDED + bytes((flags, 0, 0)) + _both("H", 1)
    body += bytes((len(name),)) + name
    body += bytes(len(body) % 2)  # with the two bytes of lengths an even number
    return bytes((len(body) + 2, 0)) + body


def _sectors(size: int) -> int:
    return -(-size // SECTOR_BYTES)


def _descriptor(label: str, total: int) -> bytes:
    """The primary volume descriptor (8.4)."""
    path_table_bytes = len(_path_table("<"))
    fields = (
        b"\1CD001\1\0" + b" " * 32 + label.encode("ascii").ljust(32) + bytes(8),
        _both("I", total) + bytes(32) + _both("H", 1) + _both("H", 1) + _both("H", SECTOR_BYTES),
        _both("I", path_table_bytes),
        struct.pack("<II", _PATH_TABLES[0], 0) + struct.pack(">II", _PATH_TABLES[1], 0),
        _record(_ROOT_NAME, _ROOT, SECTOR_BYTES, _DIRECTORY),
        b" " * (4 * 128 + 3 * 37),
        _STAMP * 2 + _NO_STAMP * 2 + b"\1\0",
    )
    return b"".join(fields).ljust(SECTOR_BYTES, b"\0")


def _path_table(order: str) -> bytes:
    """The path table of a volume with nothing but a root (9.4)."""
    return struct.pack(f"{order}BBIH", 1, 0, _ROOT, 1) + b"\0\0"


def volume(label: str, files: Mapping[str, bytes]) -> bytes:
    """The volume named ``label`` with ``files`` by name.

    Names are of small letters, digits and hyphens. Raises UsageError for other names, and for more of them than one
    sector can list.
    """
    records = [_record(_ROOT_NAME, _ROOT, SECTOR_BYTES, _DIRECTORY)]
    records.append(_record(_PARENT_NAME, _ROOT, SECTOR_BYTES, _DIRECTORY))
    data, sector = [], _FILES
    for name, content in sorted(files.items()):
        if not name.replace("-", "").isalnum() or name != name.lower() or not name.isascii():
            raise UsageError(f"file {name!r} on a seed: its name has more than small letters, digits and hyphens")
        records.append(_record(f"{name.upper()}.;1".encode(), sector, len(content)))
        data.append(content.ljust(_sectors(len(content)) * SECTOR_BYTES, b"\0"))
        sector += _sectors(len(content))
    directory = b"".join(records)
    if len(directory) > SECTOR_BYTES:
        raise UsageError(f"{len(files)} files are too many for a seed")
    terminator = b"\xffCD001\1"
    parts = (_descriptor(label, sector), terminator, _path_table("<"), _path_table(">"), directory)
    system = bytes(_DESCRIPTOR * SECTOR_BYTES)
    return system + b"".join(part.ljust(SECTOR_BYTES, b"\0") for part in parts) + b"".join(data)
