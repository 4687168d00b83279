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
_ZSTD_CHUNK_BYTES = 4 << 20
# No kernel and no module comes near.
_ZSTD_MOST_BYTES = 1 << 30


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


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer of zstd.h."""

    _fields_ = (("bytes", ctypes.c_void_p), ("size", ctypes.c_size_t), ("position", ctypes.c_size_t))


def _zstd(packed: bytes) -> bytes:
    """Unpack the first frame. It need not name its content's size: what was packed from a pipe does not."""
    library = _library("libzstd.so.1", "libzstd1")
    library.ZSTD_createDStream.restype = ctypes.c_void_p
    library.ZSTD_decompressStream.restype = ctypes.c_size_t
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    stream = ctypes.c_void_p(library.ZSTD_createDStream())
    if not stream:
        raise MemoryError("ZSTD_createDStream")
    try:
        source = _Buffer(ctypes.cast(ctypes.c_char_p(packed), ctypes.c_void_p), len(packed), 0)
        chunk = ctypes.create_string_buffer(_ZSTD_CHUNK_BYTES)
        parts, size = [], 0
        while True:
            before = source.position
            target = _Buffer(ctypes.cast(chunk, ctypes.c_void_p), len(chunk), 0)
            left = library.ZSTD_decompressStream(stream, ctypes.byref(target), ctypes.byref(source))
            if library.ZSTD_isError(ctypes.c_size_t(left)):
                what = library.ZSTD_getErrorName(ctypes.c_size_t(left)).decode()
                raise ValueError(f"the zstd frame is damaged: {what}")
            parts.append(chunk.raw[: target.position])
            size += target.position
            if size > _ZSTD_MOST_BYTES:
                raise ValueError(f"the zstd frame holds more than {_ZSTD_MOST_BYTES >> 20} MiB")
            if left == 0:
                return b"".join(parts)
            if target.position == 0 and source.position == before:
                raise ValueError("the zstd frame is cut off")
    finally:
        library.ZSTD_freeDStream(stream)
