"""Copy-on-write disks with QEMU's own tools: what a clone shares, and what snapshots bring back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runtime.errors import TestbedError
from vm_images.qcow2 import clone, drop_snapshot, list_snapshots, read_chain, revert, take_snapshot

_SIZE_BYTES = 4 << 20


def write(disk: Path, pattern: int) -> None:
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write -P {pattern} 0 64k", str(disk)], check=True)


def holds(disk: Path, pattern: int, at: str = "0") -> bool:
    command = ["qemu-io", "-r", "-f", "qcow2", "-c", f"read -P {pattern} {at} 64k", str(disk)]
    return "verification failed" not in subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base with spaces.raw"
    path.write_bytes(b"\1" * _SIZE_BYTES)
    return path


@pytest.mark.parametrize("relative", [False, True])
def test_a_clone_holds_what_its_base_does_and_keeps_changes_to_itself(
    base: Path, tmp_path: Path, relative: bool
) -> None:
    disk = tmp_path / "clones" / "a,b.qcow2"
    disk.parent.mkdir()
    clone(base, "raw", disk, relative=relative)
    assert disk.stat().st_size < 256 << 10
    assert holds(disk, 1)
    write(disk, 2)
    assert holds(disk, 2)
    assert holds(disk, 1, "64k")
    assert base.read_bytes() == b"\1" * _SIZE_BYTES


def test_relative_clones_can_be_moved_with_their_base(base: Path, tmp_path: Path) -> None:
    clone(base, "raw", tmp_path / "one.qcow2")
    clone(base, "raw", tmp_path / "two.qcow2", relative=True)
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in (base, tmp_path / "one.qcow2", tmp_path / "two.qcow2"):
        path.rename(moved / path.name)
    assert read_chain(moved / "two.qcow2") == (moved / "two.qcow2", moved / base.name)
    with pytest.raises(TestbedError, match="No such file"):
        read_chain(moved / "one.qcow2")


def test_a_clone_of_a_clone(base: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.qcow2", tmp_path / "second.qcow2"
    clone(base, "raw", first)
    write(first, 2)
    clone(first, "qcow2", second)
    write(second, 3)
    assert read_chain(second) == (second, first, base)
    assert (holds(first, 2), holds(second, 3)) == (True, True)


def test_a_base_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match=r"clone .*absent.raw as .*disk.qcow2: .*No such file"):
        clone(tmp_path / "absent.raw", "raw", tmp_path / "disk.qcow2")
    assert list(tmp_path.iterdir()) == []


def test_snapshots_bring_back_what_was(base: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    clone(base, "raw", disk)
    for number in (2, 3):
        write(disk, number)
        take_snapshot(disk, f"state {number}")
    write(disk, 4)
    assert list_snapshots(disk) == ("state 2", "state 3")
    revert(disk, "state 2")
    assert holds(disk, 2)
    revert(disk, "state 3")
    assert holds(disk, 3)
    drop_snapshot(disk, "state 2")
    assert list_snapshots(disk) == ("state 3",)
    with pytest.raises(TestbedError, match=r"revert snapshot state 2 .*there is none\n.*it has: state 3"):
        revert(disk, "state 2")
    with pytest.raises(TestbedError, match="one of that name"):
        take_snapshot(disk, "state 3")
