"""Decompression of what kernels and their packages hold: gzip, bzip2, lzma, xz, zstd and the LZ4 legacy frame.

They are recognised by their magic. What a small file may unpack to has a limit.
"""

from __future__ import annotations

import bz2
import ctypes
import lzma
import struct
import zlib
from typing import Protocol

from runtime.errors import PrerequisiteError

GZIP_MAGIC = b"\x1f\x8b"
_BZIP2_MAGIC = b"BZh"
_LZMA_MAGIC = b"\x5d\x00\x00"
_XZ_MAGIC = b"\xfd7zXZ"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_LZ4_LEGACY_MAGIC = b"\x02\x21\x4c\x18"
_LZ4_LEGACY_BLOCK_BYTES = 8 << 20
# zstd.h, zstd_errors.h: ZSTD_CONTENTSIZE_UNKNOWN, ZSTD_CONTENTSIZE_ERROR, ZSTD_error_dstSize_tooSmall.
_ZSTD_UNKNOWN, _ZSTD_DAMAGED, _ZSTD_NO_ROOM = (1 << 64) - 1, (1 << 64) - 2, 70
# No kernel is larger, nor any module.
MOST_BYTES = 1 << 30


class _Decompressor(Protocol):
    """What the standard library's decompressors have in common."""

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def decompress(packed: bytes, what: str, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the data unpacked, or itself when it is in none of the known formats.

    Raises PrerequisiteError, naming ``what``, for damaged data, more than ``most_bytes``, or a missing library.
    """
    try:
        if packed.startswith(GZIP_MAGIC):
            return _unpack(zlib.decompressobj(wbits=31), packed, most_bytes)
        if packed.startswith((_XZ_MAGIC, _LZMA_MAGIC)):
            return _unpack(lzma.LZMADecompressor(), packed, most_bytes)
        if packed.startswith(_BZIP2_MAGIC):
            return _unpack(bz2.BZ2Decompressor(), packed, most_bytes)
        if packed.startswith(_LZ4_LEGACY_MAGIC):
            return _lz4_legacy(packed, most_bytes)
        if packed.startswith(_ZSTD_MAGIC):
            return _zstd(packed, most_bytes)
    except (zlib.error, lzma.LZMAError, ValueError, OSError, EOFError) as error:
        raise PrerequisiteError(f"unpack {what}: {error}", "remove it and download it again") from error
    return packed


def _unpack(decompressor: _Decompressor, packed: bytes, most_bytes: int) -> bytes:
    """Unpack one stream; what stands behind it is not looked at."""
    data = decompressor.decompress(packed, most_bytes + 1)
    _check_size(len(data), most_bytes)
    if not decompressor.eof:
        raise ValueError("it ends in the middle")
    return data


def _check_size(size_bytes: int, most_bytes: int) -> None:
    if size_bytes > most_bytes:
        raise ValueError(f"it holds more than {most_bytes} bytes")


def _library(name: str, package: str) -> ctypes.CDLL:
    # The standard library has neither format; apt and dpkg themselves depend on both libraries.
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise PrerequisiteError(f"load {name}: {error}", f"install {package}") from error


def _lz4_legacy(packed: bytes, most_bytes: int) -> bytes:
    """Unpack blocks of at most 8 MiB, each with its packed size in front (lz4, doc/lz4_Frame_format.md)."""
    library = _library("liblz4.so.1", "liblz4-1")
    target = ctypes.create_string_buffer(_LZ4_LEGACY_BLOCK_BYTES)
    parts: list[bytes] = []
    at = len(_LZ4_LEGACY_MAGIC)
    while at + 4 <= len(packed):
        (size,) = struct.unpack_from("<I", packed, at)
        block = packed[at + 4 : at + 4 + size]
        done = library.LZ4_decompress_safe(block, target, len(block), _LZ4_LEGACY_BLOCK_BYTES)
        if done < 0 or len(block) != size:
            raise ValueError(f"the LZ4 block at byte {at} is damaged")
        parts.append(target.raw[:done])
        _check_size(sum(map(len, parts)), most_bytes)
        at += 4 + size
    return b"".join(parts)


def _zstd(packed: bytes, most_bytes: int) -> bytes:
    """Unpack one frame. That of a kernel does not name its content's size, for it was packed from a pipe."""
    library = _library("libzstd.so.1", "libzstd1")
    library.ZSTD_getFrameContentSize.restype = ctypes.c_ulonglong
    library.ZSTD_findFrameCompressedSize.restype = ctypes.c_size_t
    library.ZSTD_decompress.restype = ctypes.c_size_t
    size = library.ZSTD_getFrameContentSize(packed, ctypes.c_size_t(len(packed)))
    if size == _ZSTD_DAMAGED:
        raise ValueError("the zstd frame is damaged")
    named = size != _ZSTD_UNKNOWN
    _check_size(size if named else 0, most_bytes)
    room = size if named else most_bytes
    frame = library.ZSTD_findFrameCompressedSize(packed, ctypes.c_size_t(len(packed)))
    target = ctypes.create_string_buffer(room)
    done = library.ZSTD_decompress(target, ctypes.c_size_t(room), packed, ctypes.c_size_t(frame))
    # Error codes are the largest numbers (zstd_errors.h).
    if done == (1 << 64) - _ZSTD_NO_ROOM:
        _check_size(most_bytes + 1, most_bytes)
    if done > room or (named and done != size):
        raise ValueError("the zstd frame is damaged")
    return ctypes.string_at(target, done)
