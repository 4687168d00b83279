"""Read a tar as a stream, once, in bounded memory and linear time: POSIX ustar and pax, and GNU's extensions.

The format is that of POSIX.1-2017 (pax, "ustar Interchange Format") and of GNU tar's manual ("Basic Tar Format",
"Storing Sparse Files"). Names are bytes. Python's tarfile reads the same archives, but a header as large as the archive
says, and headers before headers by recursion; a layer comes from anywhere.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Protocol

from msgspec import Struct

BLOCK = 512
# What describes one entry: pax records, long names, the map of a sparse file. Attributes are at most 64 KiB each.
METADATA_LIMIT_BYTES = 1 << 20
SEGMENTS_LIMIT = 100_000
GLOBAL_LIMIT = 32
_ZEROES = bytes(BLOCK)
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_LARGEST = 1 << 62
_NS = 10**9

FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = (
    "file",
    "link",
    "symlink",
    "char",
    "block",
    "dir",
    "fifo",
)
_KINDS = {
    b"0": FILE, b"\0": FILE, b"7": FILE, b"S": FILE, b"1": LINK, b"2": SYMLINK, b"3": CHARACTER, b"4": BLOCK_DEVICE,
    b"5": DIRECTORY, b"6": FIFO,
}  # fmt: skip
_XATTR = b"SCHILY.xattr."
_SPARSE = b"GNU.sparse."


class TarError(ValueError):
    """The archive is not a tar, is cut off, or exceeds a limit."""


class Entry(Struct):
    """One entry. ``size`` is the file's length; ``stored`` bytes of it are in the archive: all, or those of the
    ``segments`` (offset and length) of a sparse file."""

    name: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    target: bytes
    device: tuple[int, int]
    xattrs: dict[bytes, bytes]
    stored: int
    segments: tuple[tuple[int, int], ...] | None = None


class Chunks:
    """A stream made of chunks of bytes, from which exact numbers of bytes are taken."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._chunk = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes; fewer at the end of the stream."""
        start = self._at
        taken = self._chunk[start : start + count]
        self._at = start + len(taken)
        if len(taken) == count:
            return taken
        parts = [taken]
        missing = count - len(taken)
        while missing and self._next():
            part = self._chunk[:missing]
            self._at = len(part)
            missing -= len(part)
            parts.append(part)
        return b"".join(parts)

    def pieces(self, count: int) -> Iterator[memoryview]:
        """Yield the next ``count`` bytes in pieces. Raises TarError if the stream ends before."""
        while count:
            if self._at == len(self._chunk) and not self._next():
                raise TarError(f"it is cut off: {count} bytes are missing")
            piece = memoryview(self._chunk)[self._at : self._at + count]
            self._at += len(piece)
            count -= len(piece)
            yield piece

    def skip(self, count: int) -> None:
        """Pass over the next ``count`` bytes. Raises TarError if the stream ends before."""
        for _ in self.pieces(count):
            pass

    def rest(self) -> Iterator[bytes]:
        """Yield what is left."""
        if self._at < len(self._chunk):
            yield self._chunk[self._at :]
        self._at = 0
        self._chunk = b""
        yield from self._chunks

    def _next(self) -> bool:
        self._at = 0
        self._chunk = next(filter(None, self._chunks), b"")
        return bool(self._chunk)


class Stream(Protocol):
    """Where a tar is read from: ``Chunks``, or a file in which what is passed over need not be read."""

    def take(self, count: int) -> bytes: ...
    def pieces(self, count: int) -> Iterator[memoryview]: ...
    def skip(self, count: int) -> None: ...


class TarReader:
    """The entries of a tar, in order. What is not read of an entry's content is passed over."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._global: dict[bytes, bytes] = {}
        self._left = 0  # of this entry's content, with the padding
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._entry()) is not None:
            self._left, self._padding = entry.stored, -entry.stored % BLOCK
            yield entry
            self._skip()

    def content(self) -> Iterator[memoryview]:
        """Yield the content of the entry that is being looked at, in pieces."""
        for piece in self.stream.pieces(self._left):
            self._left -= len(piece)
            yield piece

    def _skip(self) -> None:
        if self._left + self._padding:
            self.stream.skip(self._left + self._padding)
        self._left = self._padding = 0

    def _entry(self) -> Entry | None:
        """Return the next entry, or None at the archive's end."""
        records: dict[bytes, bytes] = {}
        map_records: list[int] = []
        long_name = long_target = None
        metadata = 0
        while True:
            header = self.stream.take(BLOCK)
            if not header or header == _ZEROES:
                if records or long_name or long_target:
                    raise TarError("it ends after what describes an entry")
                return None
            if len(header) < BLOCK:
                raise TarError("it is cut off in a header")
            fields = _HEADER.unpack(header)
            _check_sum(header, fields[6])
            flag = fields[7]
            if flag in b"xXgLK":
                size = _number(fields[4])
                metadata += size
                if metadata > METADATA_LIMIT_BYTES:
                    raise TarError(f"more than {METADATA_LIMIT_BYTES} bytes describe one entry")
                text = self._metadata(size)
                if flag == b"g":
                    self._global |= dict(_records(text))
                    if len(self._global) > GLOBAL_LIMIT:  # each entry pays for them
                        raise TarError(f"more than {GLOBAL_LIMIT} records describe all entries")
                elif flag == b"L":
                    long_name = text.rstrip(b"\0")
                elif flag == b"K":
                    long_target = text.rstrip(b"\0")
                else:
                    for key, value in _records(text):
                        records[key] = value
                        if key in (_SPARSE + b"offset", _SPARSE + b"numbytes"):
                            map_records.append(_decimal(value, key))
                continue
            if self._global:
                records = {**self._global, **records}
            return self._describe(fields, flag, records, map_records, long_name, long_target)

    def _metadata(self, size: int) -> bytes:
        text = self.stream.take(size)
        if len(text) < size or len(self.stream.take(-size % BLOCK)) < -size % BLOCK:
            raise TarError("it is cut off in what describes an entry")
        return text

    def _describe(
        self,
        fields: tuple[bytes, ...],
        flag: bytes,
        records: dict[bytes, bytes],
        map_records: list[int],
        long_name: bytes | None,
        long_target: bytes | None,
    ) -> Entry:
        name, target = _text(fields[0]), _text(fields[8])
        if fields[9][:6] == b"ustar\0" and fields[14][:1] != b"\0":
            name = _text(fields[14]) + b"/" + name
        name, target = long_name or name, long_target or target
        size, mtime_ns = _number(fields[4]), _number(fields[5]) * _NS
        kind = _KINDS.get(flag)
        if kind is None:
            raise TarError(f"{shown(name)}: unknown kind of entry {flag!r}")
        if flag == b"\0" and name.endswith(b"/"):
            kind = DIRECTORY  # before POSIX, a directory was told by that alone
        entry = Entry(
            name, kind, _number(fields[1]) & 0o7777, _number(fields[2]), _number(fields[3]), size, mtime_ns, target,
            (_number(fields[12]), _number(fields[13])), {}, size if kind == FILE else 0,
        )  # fmt: skip
        if flag == b"S":
            self._old_sparse(entry, fields)
        if records:
            self._apply(entry, records, map_records)
        if entry.size < 0 or entry.size > _LARGEST or entry.stored < 0:
            raise TarError(f"{shown(entry.name)}: a size of {entry.size} bytes")
        if b"\0" in entry.name or b"\0" in entry.target:
            raise TarError(f"{shown(entry.name)}: a zero byte in a name")
        return entry

    def _apply(self, entry: Entry, records: dict[bytes, bytes], map_records: list[int]) -> None:
        """Let pax records override what the header says."""
        entry.name = records.get(b"path") or entry.name
        entry.target = records.get(b"linkpath") or entry.target
        if records.get(b"uid"):
            entry.uid = _decimal(records[b"uid"], b"uid")
        if records.get(b"gid"):
            entry.gid = _decimal(records[b"gid"], b"gid")
        if records.get(b"mtime"):
            entry.mtime_ns = _time_ns(records[b"mtime"])
        if records.get(b"size"):
            entry.size = _decimal(records[b"size"], b"size")
            entry.stored = entry.size if entry.kind == FILE else 0
        for key, value in records.items():
            if key.startswith(_XATTR):
                entry.xattrs[key[len(_XATTR) :]] = value
        if entry.kind == FILE and any(key.startswith(_SPARSE) for key in records):
            self._new_sparse(entry, records, map_records)

    def _old_sparse(self, entry: Entry, fields: tuple[bytes, ...]) -> None:
        """Read the map of GNU's old format: four segments in the header, further ones in blocks after it."""
        area = fields[14]  # from byte 345: atime, ctime, offset, longnames, unused; the map is from 386
        numbers = [area[41 + 12 * i : 53 + 12 * i] for i in range(8)]
        extended = area[137:138] not in (b"", b"\0")
        entry.size = _number(area[138:150])
        while extended:
            block = self.stream.take(BLOCK)
            if len(block) < BLOCK:
                raise TarError("it is cut off in the map of a sparse file")
            numbers += [block[12 * i : 12 * i + 12] for i in range(42)]
            extended = block[504:505] != b"\0"
            if len(numbers) > 2 * SEGMENTS_LIMIT:
                raise TarError(f"{shown(entry.name)}: more than {SEGMENTS_LIMIT} segments of a sparse file")
        read = [_number(field) for field in numbers if field.strip(b" \0")]
        entry.segments = _segments(entry, read)

    def _new_sparse(self, entry: Entry, records: dict[bytes, bytes], map_records: list[int]) -> None:
        """Read the map of pax formats 0.0 and 0.1, in records, or 1.0, before the content."""
        entry.name = records.get(_SPARSE + b"name") or entry.name
        size = records.get(_SPARSE + b"realsize") or records.get(_SPARSE + b"size")
        if records.get(_SPARSE + b"major") == b"1":
            numbers, used = self._map_before_content(entry)
            entry.stored -= used
        elif _SPARSE + b"map" in records:
            numbers = [_decimal(text, b"map") for text in records[_SPARSE + b"map"].split(b",") if text]
        else:
            numbers = map_records
        if size:
            entry.size = _decimal(size, b"realsize")
        entry.segments = _segments(entry, numbers)

    def _map_before_content(self, entry: Entry) -> tuple[list[int], int]:
        """Return the numbers of a map of format 1.0, and how many bytes of the stored content it took."""
        text, used = b"", 0
        lines: list[bytes] = []
        wanted = 1
        while len(lines) < wanted:
            block = self.stream.take(BLOCK)
            used += BLOCK
            if len(block) < BLOCK or used > entry.stored or used > 2 * METADATA_LIMIT_BYTES:
                raise TarError(f"{shown(entry.name)}: the map of a sparse file is cut off, or too long")
            *complete, text = (text + block).split(b"\n")
            lines += complete
            if len(lines) >= 1 and wanted == 1:
                wanted = 1 + 2 * min(_decimal(lines[0], b"map"), SEGMENTS_LIMIT)
        return [_decimal(line, b"map") for line in lines[1:wanted]], used


def _segments(entry: Entry, numbers: list[int]) -> tuple[tuple[int, int], ...]:
    """Return the segments of a sparse file. Raises TarError unless they ascend and hold just what is stored."""
    if len(numbers) % 2 or len(numbers) > 2 * SEGMENTS_LIMIT:
        raise TarError(f"{shown(entry.name)}: the map of a sparse file has {len(numbers)} numbers")
    end = total = 0
    segments = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    for offset, length in segments:
        if offset < end or length < 0 or offset + length > entry.size:
            raise TarError(f"{shown(entry.name)}: segments of a sparse file overlap, or lie outside of it")
        end = offset + length
        total += length
    if total != entry.stored:
        raise TarError(f"{shown(entry.name)}: {entry.stored} bytes are stored, and the map says {total}")
    return segments


def _records(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keyword and value of each pax record."""
    at = 0
    while at < len(text):
        space = text.find(b" ", at, at + 8)
        length = _decimal(text[at:space], b"length") if space > 0 else 0
        end = at + length
        equals = text.find(b"=", space, end)
        if space < 0 or equals < 0 or length <= 0 or end > len(text) or text[end - 1 : end] != b"\n":
            raise TarError("a malformed pax record")
        yield text[space + 1 : equals], text[equals + 1 : end - 1]
        at = end


def _check_sum(header: bytes, field: bytes) -> None:
    try:
        wanted = _number(field)
    except TarError:
        wanted = -1
    without = sum(header) - sum(header[148:156]) + 8 * 32
    if without != wanted:
        signed = without - 256 * sum(byte > 127 for byte in header[:148] + header[156:])  # some old tars did so
        if signed != wanted:
            raise TarError("no tar header where one is due: its checksum is wrong")


def _number(field: bytes) -> int:
    """Return a number of a header: octal digits, or GNU's base 256, which may be negative."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes((field[0] & 0x3F if field[0] & 0x40 == 0 else field[0],)) + field[1:], "big")
        return value if field[0] & 0x40 == 0 else value - (1 << (8 * len(field)))
    try:
        return int(_text(field).strip() or b"0", 8)
    except ValueError:
        raise TarError(f"no octal number in a header: {field!r}") from None


def _decimal(text: bytes, key: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise TarError(f"{shown(key)} {shown(text)}: not a number")
    return int(text)


def _time_ns(text: bytes) -> int:
    """Return a pax time, decimal seconds, in nanoseconds; what is finer is rounded down."""
    sign = -1 if text[:1] == b"-" else 1
    seconds, _, fraction = text.lstrip(b"-").partition(b".")
    if not (seconds + fraction).isdigit() or len(seconds) > 18 or len(text) > 64:
        raise TarError(f"mtime {shown(text)}: not a time")
    ns = int(seconds or b"0") * _NS + int((fraction + b"000000000")[:9])
    if sign < 0 and fraction[9:].strip(b"0"):
        ns += 1
    return sign * ns


def _text(field: bytes) -> bytes:
    end = field.find(b"\0")
    return field if end < 0 else field[:end]


def shown(text: bytes) -> str:
    return ascii(text[:80].decode("utf-8", "backslashreplace"))[1:-1]
