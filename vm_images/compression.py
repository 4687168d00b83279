"""Decompression of what kernel packages hold: gzip, xz, zstd and the LZ4 legacy frame, recognised by their magic."""

from __future__ import annotations

import ctypes
import lzma
import struct
import zlib

from runtime.errors import PrerequisiteError

_GZIP_MAGIC = b"\x1f\x8b"
_XZ_MAGIC = b"\xfd7zXZ"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_LZ4_LEGACY_MAGIC = b"\x02\x21\x4c\x18"
_LZ4_LEGACY_BLOCK_BYTES = 8 << 20


def decompress(packed: bytes, what: str) -> bytes:
    """Return the data unpacked, or itself when it is in none of the known formats.

    Raises PrerequisiteError, naming ``what``, for damaged data or a missing library.
    """
    try:
        if packed.startswith(_GZIP_MAGIC):
            return zlib.decompress(packed, wbits=31)
        if packed.startswith(_XZ_MAGIC):
            return lzma.decompress(packed)
        if packed.startswith(_LZ4_LEGACY_MAGIC):
            return _lz4_legacy(packed)
        if packed.startswith(_ZSTD_MAGIC):
            return _zstd(packed)
    except (zlib.error, lzma.LZMAError, ValueError) as error:
        raise PrerequisiteError(f"unpack {what}: {error}", "remove it and download it again") from error
    return packed


def _library(name: str, package: str) -> ctypes.CDLL:
    # The standard library has neither format; apt and dpkg themselves depend on both libraries.
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise PrerequisiteError(f"load {name}: {error}", f"install {package}") from error


def _lz4_legacy(packed: bytes) -> bytes:
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
        at += 4 + size
    return b"".join(parts)


def _zstd(packed: bytes) -> bytes:
    """Unpack one frame that names its content's size, as the kernel's build writes them."""
    library = _library("libzstd.so.1", "libzstd1")
    library.ZSTD_getFrameContentSize.restype = ctypes.c_ulonglong
    library.ZSTD_findFrameCompressedSize.restype = ctypes.c_size_t
    library.ZSTD_decompress.restype = ctypes.c_size_t
    size = library.ZSTD_getFrameContentSize(packed, ctypes.c_size_t(len(packed)))
    if size >= 1 << 32:  # also the error codes, which are the largest numbers
        raise ValueError("the zstd frame does not name its size")
    frame = library.ZSTD_findFrameCompressedSize(packed, ctypes.c_size_t(len(packed)))
    target = ctypes.create_string_buffer(size)
    done = library.ZSTD_decompress(target, ctypes.c_size_t(size), packed, ctypes.c_size_t(frame))
    if done != size:
        raise ValueError("the zstd frame is damaged")
    return target.raw
