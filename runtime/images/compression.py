"""The compressions of layers (image-spec layer.md: none, gzip, zstd), told by their first bytes, as streams of
chunks."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, Literal

from runtime.errors import PrerequisiteError, UsageError
from runtime.images.descriptors import LAYER_GZIP, LAYER_TAR, LAYER_ZSTD

Compression = Literal["none", "gzip", "zstd"]
COMPRESSIONS: tuple[Compression, ...] = ("none", "gzip", "zstd")
MEDIA_TYPES: dict[Compression, str] = {"none": LAYER_TAR, "gzip": LAYER_GZIP, "zstd": LAYER_ZSTD}

_GZIP, _ZSTD, _SKIPPABLE = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
# Input is given to zlib in slices of this size: what it leaves of one at the end of a gzip member is copied.
_SLICE = 16 << 10
_YIELD_BYTES = 512 << 10
# Formats that can be read in pieces have one member for each; empty ones would take time and give nothing.
_MEMBERS_LIMIT = 4_000_000
# What RFC 8878 asks of every decoder is 8 MiB; `zstd --long` takes 128.
_WINDOW_BYTES = 128 << 20


def parse_compression(text: str) -> Compression:
    """Return the compression with this name. Raises UsageError where there is none."""
    for one in COMPRESSIONS:
        if one == text:
            return one
    raise UsageError(f"compression {text}: there is no such compression", f"one of {', '.join(COMPRESSIONS)}")


def detect(start: bytes) -> Compression:
    """Return how a stream that begins with these bytes is compressed. Raises UsageError for what layers do not use."""
    if start.startswith(_GZIP):
        return "gzip"
    if is_zstd(start):
        return "zstd"
    for magic, name in _OTHERS.items():
        if start.startswith(magic):
            raise UsageError(f"it is compressed with {name}", "layers are plain tars, or compressed with gzip or zstd")
    return "none"


def is_zstd(start: bytes) -> bool:
    """Return whether a stream that begins with these bytes is compressed with zstd."""
    return start.startswith(_ZSTD) or start[1:4] == _SKIPPABLE


def decompressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the content of a stream, whatever it is compressed with. Raises UsageError for one that is damaged."""
    source = iter(chunks)
    first = b""
    for chunk in source:
        first += chunk
        if len(first) >= 8:
            break
    kind = detect(first)
    return {"none": _plain, "gzip": _gunzip, "zstd": _unzstd}[kind](_joined(first, source))


class Chunks(io.RawIOBase):
    """A stream of chunks as a file that can only be read, once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._chunk = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._chunk:
            self._chunk = next(self._chunks, b"")
        count = min(len(buffer), len(self._chunk))
        buffer[:count] = self._chunk[:count]
        self._chunk = self._chunk[count:]
        return count


def _joined(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _plain(chunks: Iterator[bytes]) -> Iterator[bytes]:
    return chunks


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the content of all members of a gzip file; zeroes after the last are padding, as for gzip(1)."""
    member = zlib.decompressobj(wbits=31)
    members = 1
    ready: list[bytes] = []
    length = 0
    ended = False
    try:
        for chunk in chunks:
            for at in range(0, len(chunk), _SLICE):
                data = chunk[at : at + _SLICE]
                while data:
                    if ended:
                        data = data.lstrip(b"\0")
                        if not data:
                            break
                        member, ended = zlib.decompressobj(wbits=31), False
                        members += 1
                        if members > _MEMBERS_LIMIT:
                            raise UsageError(f"it has more than {_MEMBERS_LIMIT} gzip members")
                    ready.append(member.decompress(data))
                    length += len(ready[-1])
                    if length >= _YIELD_BYTES:
                        yield b"".join(ready)
                        ready.clear()
                        length = 0
                    ended = member.eof
                    data = member.unused_data
    except zlib.error as error:
        raise UsageError(f"gzip: {error}") from error
    yield b"".join(ready)
    if not ended:
        raise UsageError("gzip: it is cut off")


def _unzstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    zstandard = _zstandard()
    reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES).stream_reader(
        _Readable(chunks), read_across_frames=True
    )
    try:
        while out := reader.read(1 << 20):
            yield out
    except zstandard.ZstdError as error:
        raise UsageError(f"zstd: {error}") from error


class _Readable:
    """Chunks as a file object. Each is returned whole, however few bytes are asked for, as the decompressor accepts."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def read(self, count: int = -1) -> bytes:
        return next(self._chunks, b"")


def compressed(chunks: Iterable[bytes], compression: Compression) -> Iterator[bytes]:
    """Yield a stream compressed: with gzip as ``gzip -6n``, with zstd at its default level."""
    if compression == "none":
        yield from chunks
        return
    compressor = (
        zlib.compressobj(6, zlib.DEFLATED, 31) if compression == "gzip" else _zstandard().ZstdCompressor().compressobj()
    )
    for chunk in chunks:
        if out := compressor.compress(chunk):
            yield out
    yield compressor.flush()


def _zstandard() -> ModuleType:
    try:
        import zstandard
    except ImportError as error:
        raise PrerequisiteError("zstd: Python's zstandard is missing", "run ./invoke, which installs it") from error
    return zstandard
