"""A copied union: what overlay shows of the same branches, and all that belongs to a file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from runtime.unionfs import detached
from runtime.unionfs.copying import copy_union
from runtime.unionfs.lookup import OPAQUE_XATTR, find_entry

pytestmark = pytest.mark.root


def shown(tree: Path) -> dict[str, tuple[object, ...]]:
    """What a directory holds, by name."""
    entries: dict[str, tuple[object, ...]] = {}
    for folder, directories, files in os.walk(tree):
        for name in (*directories, *files):
            path = Path(folder, name)
            status = path.lstat()
            content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
            attributes = {
                one: os.getxattr(path, one, follow_symlinks=False) for one in os.listxattr(path, follow_symlinks=False)
            }
            attributes = {one: value for one, value in attributes.items() if not one.startswith("trusted.overlay")}
            links = 0 if path.is_dir() else status.st_nlink
            own = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev, links)
            entries[str(path.relative_to(tree))] = (*own, content, attributes)
    return entries


@pytest.fixture
def branches(tmp_path: Path) -> tuple[str, str]:
    """Two branches with everything that a file system holds; the topmost hides some of it."""
    top, bottom = tmp_path / "top", tmp_path / "bottom"
    for path in (top, top / "both", top / "opaque", bottom, bottom / "both", bottom / "opaque"):
        path.mkdir()
    for name in ("both/below", "opaque/hidden", "gone", "kept"):
        (bottom / name).write_text(name)
    os.mknod(top / "gone", stat.S_IFCHR, os.makedev(0, 0))
    os.setxattr(top / "opaque", OPAQUE_XATTR, b"y")
    (top / "both" / "above").write_text("above")
    os.link(top / "both" / "above", top / "another-name")
    (top / "link").symlink_to("/etc/passwd")
    os.mkfifo(top / "fifo")
    os.mknod(top / "device", stat.S_IFCHR | 0o640, os.makedev(1, 3))
    (top / "program").write_bytes(b"\x7fELF")
    os.chown(top / "program", 1000, 1001)
    (top / "program").chmod(0o4755)
    os.setxattr(top / "program", "user.note", b"\xff\0")
    os.utime(top / "program", ns=(5, -7_000_000_123))
    with (top / "sparse").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(1 << 29)
        file.write(b"island")
    os.utime(top / "both", ns=(1, 2))
    return str(top), str(bottom)


def test_a_copy_is_what_the_kernel_shows(branches: tuple[str, str], tmp_path: Path) -> None:
    os.truncate(f"{branches[0]}/sparse", 1 << 20)
    copy = tmp_path / "copy"
    copy.mkdir()
    copy_union(branches, str(copy))
    mount = detached.overlay_by_options(detached.Stack(branches, None, "union-test"))
    try:
        assert shown(copy) == shown(Path(f"/proc/self/fd/{mount}"))
    finally:
        os.close(mount)
    assert sorted(os.listdir(copy / "both")) == ["above", "below"] and os.listdir(copy / "opaque") == []
    assert (copy / "both" / "above").samefile(copy / "another-name")


def test_holes_stay_holes(branches: tuple[str, str], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    copy_union(branches, str(copy))
    status = (copy / "sparse").stat()
    assert status.st_size == 1 << 30 and status.st_blocks * 512 < 1 << 20
    with (copy / "sparse").open("rb") as file:
        file.seek((1 << 29) - 1)
        assert file.read(8) == b"\0island\0"


def test_a_name_is_found_where_the_union_takes_it_from(branches: tuple[str, str]) -> None:
    top, bottom = branches
    assert find_entry(branches, "both/below") == f"{bottom}/both/below"
    assert find_entry(branches, "both/above") == f"{top}/both/above"
    assert find_entry(branches, "gone") is None and find_entry(branches, "opaque/hidden") is None
    assert find_entry(branches, ".") == top and find_entry(branches, "kept/under-a-file") is None
