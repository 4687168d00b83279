"""Chooses how QEMU uses the host's page cache for a disk, and checks whether a file system lets it do without."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Literal

from runtime.errors import PrerequisiteError

# QEMU, docs/system/qemu-block-drivers.rst and -drive cache=: "none" reads and writes past the host's cache;
# "directsync" does, and waits for the medium after each write; "writeback" (QEMU's own choice) caches both and
# obeys the guest's flushes; "writethrough" caches reads only; "unsafe" caches both and ignores flushes.
CacheMode = Literal["none", "writeback", "writethrough", "directsync", "unsafe"]
_DIRECT: tuple[CacheMode, ...] = ("none", "directsync")


def io_mode(cache: CacheMode) -> str:
    """Return QEMU's way of waiting for the disk: the kernel's own (Linux AIO) exists only past the page cache."""
    return "native" if cache in _DIRECT else "threads"


def require_cache_mode(cache: CacheMode, path: Path) -> None:
    """Raise PrerequisiteError if the file at ``path`` is where it cannot be read past the page cache, and must be."""
    if cache not in _DIRECT:
        return
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise PrerequisiteError(
            f"page cache mode {cache} for {path}: its file system refuses O_DIRECT, QEMU's way past the cache",
            "set TESTBED_HOME to a directory on a disk's file system (ext4, xfs, btrfs), or choose another mode",
        ) from error
