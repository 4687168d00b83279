"""Each format that kernels and modules come in, packed as their own tools pack them."""

from __future__ import annotations

import bz2
import ctypes
import gzip
import lzma
import struct
from collections.abc import Callable

import pytest

from runtime.errors import PrerequisiteError
from vm_images.compression import decompress

BLOCK_BYTES = 8 << 20
DATA = bytes(range(256)) * 50_000  # above one LZ4 block
LITTLE = DATA[: 1 << 18]  # bzip2 takes seconds for all of it


def lz4_legacy(data: bytes) -> bytes:
    """The frame that the kernel's build makes (``lz4 -l``), by the library."""
    library = ctypes.CDLL("liblz4.so.1")
    packed = bytearray(b"\x02\x21\x4c\x18")
    for at in range(0, len(data), BLOCK_BYTES):
        block = data[at : at + BLOCK_BYTES]
        target = ctypes.create_string_buffer(library.LZ4_compressBound(len(block)))
        done = library.LZ4_compress_default(block, target, len(block), len(target))
        packed += struct.pack("<I", done) + target.raw[:done]
    return bytes(packed)


def zstd(data: bytes, *, with_size: bool) -> bytes:
    """A frame, with its content's size in its header or, as ``zstd`` makes it from a pipe, without."""
    library = ctypes.CDLL("libzstd.so.1")
    library.ZSTD_createCCtx.restype = ctypes.c_void_p
    library.ZSTD_compress2.restype = ctypes.c_size_t
    context = ctypes.c_void_p(library.ZSTD_createCCtx())
    library.ZSTD_CCtx_setParameter(context, 200, int(with_size))  # ZSTD_c_contentSizeFlag
    target = ctypes.create_string_buffer(len(data) + 1000)
    done = library.ZSTD_compress2(context, target, ctypes.c_size_t(len(target)), data, ctypes.c_size_t(len(data)))
    library.ZSTD_freeCCtx(context)
    return target.raw[:done]


def test_gzip_and_xz() -> None:
    assert decompress(gzip.compress(DATA), "test") == DATA
    assert decompress(lzma.compress(DATA, check=lzma.CHECK_CRC32), "test") == DATA


def test_lz4_legacy() -> None:
    assert decompress(lz4_legacy(DATA), "test") == DATA


@pytest.mark.parametrize("with_size", [True, False])
def test_zstd_with_its_size_in_the_frame_and_without(with_size: bool) -> None:
    """Debian 12's kernel names it, Debian 13's does not."""
    assert decompress(zstd(DATA, with_size=with_size) + b"trailing size", "test") == DATA


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda packed: packed[:-10], "is damaged"),
        (lambda packed: packed[:-200] + bytes(200), "damaged"),
        (lambda packed: packed[:4] + b"\xff" * 200, "damaged"),
    ],
)
def test_a_damaged_zstd_frame_is_noticed(damage: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(PrerequisiteError, match=f"unpack test: the zstd frame .*{message}"):
        decompress(damage(zstd(DATA, with_size=False)), "test")


def test_what_is_not_packed_is_left_alone() -> None:
    assert decompress(b"\x7fELF...", "test") == b"\x7fELF..."


@pytest.mark.parametrize("packed", [gzip.compress(DATA), lzma.compress(DATA)])
def test_damage_names_the_file(packed: bytes) -> None:
    with pytest.raises(PrerequisiteError, match="unpack the guest kernel"):
        decompress(packed[:40] + b"\0" * 20, "the guest kernel")


def test_a_cut_lz4_block_is_noticed() -> None:
    with pytest.raises(PrerequisiteError, match="damaged"):
        decompress(lz4_legacy(DATA)[:-10], "test")


@pytest.mark.parametrize(
    ("pack", "data"),
    [
        (gzip.compress, LITTLE),
        (lzma.compress, LITTLE),
        (bz2.compress, LITTLE),
        (lz4_legacy, DATA),
        (lambda data: zstd(data, with_size=False), DATA),
    ],
)
def test_what_unpacks_to_more_than_the_limit_is_refused(pack: Callable[[bytes], bytes], data: bytes) -> None:
    packed = pack(data)
    assert decompress(packed, "test", len(data)) == data
    with pytest.raises(PrerequisiteError, match="unpack test: it holds more than"):
        decompress(packed, "test", len(data) - 1)


def test_bzip2_and_the_old_lzma() -> None:
    assert decompress(bz2.compress(LITTLE), "test") == LITTLE
    assert decompress(lzma.compress(LITTLE, format=lzma.FORMAT_ALONE), "test") == LITTLE
