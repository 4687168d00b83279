"""What becomes of a union whose change was interrupted, by what is mounted."""

from __future__ import annotations

import pytest

from runtime.unionfs.branches import parse_union
from runtime.unionfs.mount_api import MountPoint, parse_mounts
from runtime.unionfs.records import Generation, Record, decide_repair, generation_of

UNION = parse_union("br:/a=rw:/b=ro")


def record(current: int, *numbers: int, driver: str = "overlay") -> Record:
    generations = tuple(Generation(n, UNION, driver, "", f"/.union-x.{n}", f"0:{40 + n}") for n in numbers)
    return Record("x", "/m", 1, generations, current)


@pytest.mark.parametrize(
    ("known", "mounted", "top", "left"),
    [
        (record(1, 1), (1,), 1, (record(1, 1), (), False)),
        (record(0, 1), (), 0, (None, (1,), False)),  # killed before the first mount
        (record(0, 1), (1,), 1, (record(1, 1), (), False)),  # and after it
        (record(1, 1, 2), (1,), 1, (record(1, 1), (2,), False)),
        (record(1, 1, 2), (1, 2), 1, (record(2, 1, 2), (), True)),  # the new one is beneath the old one
        (record(1, 1, 2), (2,), 2, (record(2, 1, 2), (), False)),
        (record(1, 1, 2), (1, 2), 2, (record(2, 1, 2), (), False)),  # above it, as before Linux 6.5
        (record(2, 1, 2), (), 0, (None, (1, 2), False)),  # unmounted by somebody else
    ],
)
def test_a_record_is_made_true(
    known: Record, mounted: tuple[int, ...], top: int, left: tuple[Record | None, tuple[int, ...], bool]
) -> None:
    repair = decide_repair(known, mounted, top)
    assert (repair.record, tuple(one.number for one in repair.abandoned), repair.unmount_top) == left


def test_mounts_are_known_by_what_their_driver_lets_them_show() -> None:
    def line(root: str, source: str, device: str = "0:9", target: str = "/m") -> MountPoint:
        return MountPoint(7, device, root, target, "any", source)

    assert generation_of(record(1, 1, 2), line("/", "union-x.2")) == 2
    assert generation_of(record(1, 1, 2), line("/", "union-x.2", target="/elsewhere")) == 0
    assert generation_of(record(1, 1, 2), line("/", "union-y.2")) == 0
    assert generation_of(record(1, 1, 2, driver="copy"), line("/home/.union-x.1", "/dev/vda")) == 1
    assert generation_of(record(1, 1, 2, driver="fuse-overlayfs"), line("/", "fuse-overlayfs", "0:41")) == 1


def test_names_of_mounts_are_read_as_the_kernel_writes_them() -> None:
    text = rb"52 27 0:47 / /tmp/a\040b\134c rw,noatime shared:1 - overlay union\0401 rw,lowerdir=/x"
    assert list(parse_mounts([text])) == [MountPoint(52, "0:47", "/", "/tmp/a b\\c", "overlay", "union 1")]
