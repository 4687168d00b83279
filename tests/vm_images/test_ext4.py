"""The disk as ext4: the same bits for the same layers, and in it all that the layers hold."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vm_images.disk import build_disk
from vm_images.ext4 import extra_time

pytestmark = pytest.mark.root

_LATE_NS = 4_102_444_800_123_456_789  # in 2100: beyond what 32 bits of seconds hold


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    """Two layers with what a file system can lose on the way."""
    low, top = tmp_path / "low", tmp_path / "top"
    for layer in (low, top):
        layer.mkdir()
    for name in ("removed", "kept", "replaced"):
        (low / name).write_text(f"low {name}")
    (low / "large").write_bytes(os.urandom(3 << 20))
    (low / 'a "quoted" name, with spaces').write_text("odd")
    (low / "ünïcode").write_text("odd")
    (low / os.fsdecode(b"not UTF-8 \xff")).write_text("odd")
    (low / ("n" * 255)).write_text("odd")
    (low / "two\nlines" / "and\rmore").mkdir(parents=True)
    (low / "two\nlines" / "and\rmore" / "file").write_text("odd")
    os.utime(low / "two\nlines" / "and\rmore" / "file", ns=(1, _LATE_NS))
    os.link(low / "kept", low / "hard-link")
    (low / "directory" / "deep").mkdir(parents=True)
    (low / "directory" / "deep" / "below").write_text("hidden")
    (low / "link").symlink_to("kept")
    (low / "long-link").symlink_to("x" * 200)
    os.mknod(low / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(low / "fifo", 0o640)
    os.setxattr(low / "kept", "user.note", b"mine")
    os.setxattr(low / "directory", "security.capability", b"\1\0\0\2\0\4\0\0" + bytes(12))
    (low / "kept").chmod(0o4750)
    os.chown(low / "kept", 70000, 100000)
    os.utime(low / "kept", ns=(1, 1_000_000_000_123_456_789))
    os.utime(low / "replaced", ns=(1, 2))
    os.utime(low / "large", ns=(1, _LATE_NS))
    os.mknod(top / "removed", stat.S_IFCHR, 0)
    (top / "replaced").write_text("top")
    (top / "directory").mkdir()
    os.setxattr(top / "directory", "trusted.overlay.opaque", b"y")
    os.chown(top, 5, 6)
    top.chmod(0o751)
    return [low, top]


@contextmanager
def mounted(disk: Path, at: Path) -> Iterator[Path]:
    at.mkdir()
    subprocess.run(["mount", "-o", "ro,loop", str(disk), str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def test_two_builds_give_the_same_bits(layers: list[Path], tmp_path: Path) -> None:
    first, second = tmp_path / "one.ext4", tmp_path / "elsewhere" / "two.ext4"
    build_disk(layers, "sha256:1", first, "ext4")
    (layers[0] / "large").read_bytes()
    os.utime(layers[0] / "kept", ns=(10**18, (layers[0] / "kept").stat().st_mtime_ns))  # read, and changed, since
    os.link(layers[0] / "large", tmp_path / "of another build")
    build_disk(layers, "sha256:1", second, "ext4")
    assert subprocess.run(["cmp", str(first), str(second)], check=False).returncode == 0
    assert os.listdir(second.parent) == ["two.ext4"]
    os.utime(layers[1] / "replaced", (5, 5))
    build_disk(layers, "sha256:1", second, "ext4")
    assert subprocess.run(["cmp", "-s", str(first), str(second)], check=False).returncode == 1


def test_it_is_consistent_and_has_room(layers: list[Path], tmp_path: Path) -> None:
    disk = tmp_path / "disk.ext4"
    build_disk(layers, "sha256:1", disk, "ext4")
    checked = subprocess.run(["e2fsck", "-f", "-n", str(disk)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    with mounted(disk, tmp_path / "mnt") as root:
        room = os.statvfs(root)
    assert room.f_bavail * room.f_frsize > 1000 << 20
    assert disk.stat().st_blocks * 512 < 64 << 20, "it is sparse"


def test_the_files_come_out_as_they_went_in(layers: list[Path], tmp_path: Path) -> None:
    disk, low = tmp_path / "disk.ext4", layers[0]
    build_disk(layers, "sha256:1", disk, "ext4")
    with mounted(disk, tmp_path / "mnt") as root:
        names = {path.name for path in low.iterdir()} - {"removed"}
        assert set(os.listdir(root)) == names, "a whiteout removes, and nothing is added"
        assert os.listdir(root / "directory") == [], "an opaque directory hides"
        assert (root / "replaced").read_text() == "top"
        for name in sorted(names - {"replaced", "directory"}):
            actual, expected = (root / name).lstat(), (low / name).lstat()
            assert (actual.st_mode, actual.st_uid, actual.st_gid, actual.st_mtime_ns, actual.st_rdev) == (
                *(expected.st_mode, expected.st_uid, expected.st_gid, expected.st_mtime_ns, expected.st_rdev),
            ), name
            assert actual.st_atime_ns == actual.st_ctime_ns == actual.st_mtime_ns
        assert (root / "large").read_bytes() == (low / "large").read_bytes()
        assert (root / "large").stat().st_mtime_ns == _LATE_NS
        assert os.readlink(root / "long-link") == "x" * 200
        assert (root / "kept").stat().st_ino == (root / "hard-link").stat().st_ino
        assert (root / "kept").stat().st_nlink == 2
        assert (root / "large").stat().st_nlink == 1
        assert os.getxattr(root / "kept", "user.note") == b"mine"
        assert os.listxattr(root / "directory") == []
        status = root.stat()
        assert (status.st_mode, status.st_uid, status.st_gid) == (stat.S_IFDIR | 0o751, 5, 6)
        assert status.st_mtime_ns == layers[1].stat().st_mtime_ns


@pytest.mark.parametrize(
    ("seconds", "epoch"), [(0, 0), (-1, 0), (2**31 - 1, 0), (2**31, 1), (2**32, 1), (2**32 + 2**31, 2)]
)
def test_time_stamps_have_two_more_bits(seconds: int, epoch: int) -> None:
    """The table in Documentation/filesystems/ext4/inodes.rst."""
    assert extra_time(seconds * 10**9 + 5) == 5 << 2 | epoch
