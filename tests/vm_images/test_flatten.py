"""Layers merged without mounting, held against what the kernel's overlayfs shows of the same layers."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from vm_images.flatten import merge, stage

pytestmark = pytest.mark.root


def described(root: Path) -> dict[str, tuple[object, ...]]:
    """Type, permissions, owner, modification time and content of everything below a directory."""
    entries: dict[str, tuple[object, ...]] = {}
    for folder, directories, files in os.walk(root):
        for name in [".", *directories, *files]:
            path = Path(folder, name)
            status = path.lstat()
            content: object = os.readlink(path) if path.is_symlink() else status.st_rdev
            if stat.S_ISREG(status.st_mode):
                content = path.read_bytes()
            about = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content)
            entries[os.path.relpath(path, root)] = about
    return entries


@pytest.fixture
def layers(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Three layers with every way in which one can cover another."""
    low, middle, top = (tmp_path / "layers" / name for name in ("low", "middle", "top"))
    for layer in (low, middle, top):
        layer.mkdir(parents=True)
    for name in ("kept", "replaced", "removed", "file-to-directory"):
        (low / name).write_text(f"low {name}")
    for name in ("merged", "opaque", "directory-to-file", "removed-directory", "remade"):
        (low / name / "deep").mkdir(parents=True)
        (low / name / "deep" / "below").write_text(name)
    (low / "link").symlink_to("kept")
    os.mknod(low / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.link(low / "kept", low / "hard-link")
    (low / "merged").chmod(0o1777)

    os.mknod(middle / "removed", stat.S_IFCHR, 0)
    os.mknod(middle / "removed-directory", stat.S_IFCHR, 0)
    os.mknod(middle / "remade", stat.S_IFCHR, 0)
    (middle / "replaced").write_text("middle")
    (middle / "directory-to-file").write_text("middle")
    (middle / "merged" / "deep").mkdir(parents=True)
    (middle / "merged" / "deep" / "beside").write_text("middle")
    (middle / "merged").chmod(0o750)
    os.chown(middle / "merged", 1000, 100)
    os.utime(middle / "merged", ns=(10**18, 10**18 + 5))

    (top / "file-to-directory").mkdir()
    (top / "opaque").mkdir()
    os.setxattr(top / "opaque", "trusted.overlay.opaque", b"y")
    (top / "opaque" / "new").write_text("top")
    (top / "remade").mkdir()
    (top / "remade" / "fresh").write_text("top")
    os.setxattr(top / "remade", "trusted.overlay.opaque", b"y")
    return low, middle, top


def test_the_tree_is_what_overlayfs_shows(layers: tuple[Path, ...], tmp_path: Path) -> None:
    stage(merge(layers), tmp_path / "tree")
    merged = tmp_path / "mounted"
    merged.mkdir()
    lower = ":".join(str(layer) for layer in reversed(layers))
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", f"ro,lowerdir={lower}", str(merged)], check=True)
    try:
        expected = described(merged)
    finally:
        subprocess.run(["umount", str(merged)], check=True)
    tree = described(tmp_path / "tree")
    assert tree == expected
    assert "opaque/deep/below" not in tree
    assert "merged/deep/beside" in tree


def test_layers_are_as_before(layers: tuple[Path, ...], tmp_path: Path) -> None:
    before = [described(layer) for layer in layers]
    stage(merge(layers), tmp_path / "tree")
    assert [described(layer) for layer in layers] == before


def test_the_sum_and_the_newest_time(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "a").write_bytes(bytes(1000))
    (layer / "b").write_bytes(bytes(24))
    os.utime(layer / "b", ns=(0, 4 * 10**18))
    staged = stage(merge([layer]), tmp_path / "tree")
    assert (staged.total_bytes, staged.newest_ns) == (1024, 4 * 10**18)


def test_overlays_own_attributes_stay_behind(layers: tuple[Path, ...], tmp_path: Path) -> None:
    os.setxattr(layers[2] / "opaque", "security.kept", b"1")
    stage(merge(layers), tmp_path / "tree")
    assert os.listxattr(tmp_path / "tree" / "opaque") == ["security.kept"]
