"""Page cache modes: which go past the cache, and what is said where a file system cannot."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from vm_images.page_cache import CacheMode, io_mode, require_cache_mode


@pytest.mark.parametrize(
    ("cache", "io"),
    [
        ("none", "native"),
        ("directsync", "native"),
        ("writeback", "threads"),
        ("writethrough", "threads"),
        ("unsafe", "threads"),
    ],
)
def test_only_without_the_cache_the_kernel_waits(cache: CacheMode, io: str) -> None:
    assert io_mode(cache) == io


@pytest.mark.root
def test_a_file_system_without_direct_reads_is_refused_for_modes_that_need_them(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "ramfs", "ramfs", str(tmp_path)], check=True)
    try:
        disk = tmp_path / "disk"
        disk.write_bytes(bytes(4096))
        with pytest.raises(PrerequisiteError, match=f"page cache mode none for {disk}.*O_DIRECT"):
            require_cache_mode("none", disk)
        with pytest.raises(PrerequisiteError, match="directsync"):
            require_cache_mode("directsync", disk)
        require_cache_mode("writeback", disk)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
