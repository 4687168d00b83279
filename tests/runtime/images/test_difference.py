"""Two images compared as their containers would see them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from runtime.images.difference import Change, differences
from runtime.images.model import Layer
from runtime.unionfs.lookup import OPAQUE_XATTR

pytestmark = pytest.mark.root


def layer(tmp_path: Path, name: str, *files: str) -> Layer:
    path = tmp_path / name
    for file in files:
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_text(file)
        os.utime(path / file, (1, 1))
    return Layer(name, path)


def shown(before: list[Layer], after: list[Layer]) -> list[str]:
    return [f"{one.kind} {one.path} {one.what}".strip() for one in differences(before, after)]


def test_an_image_differs_from_its_base_by_what_its_own_layer_says(tmp_path: Path) -> None:
    base = layer(tmp_path, "base", "etc/passwd", "etc/group", "old/a", "old/b", "same", "swapped")
    top = layer(tmp_path, "top", "etc/passwd", "new/file", "old/b", "same")
    (top.path / "etc/passwd").write_text("other")
    os.mknod(top.path / "etc/group", stat.S_IFCHR, os.makedev(0, 0))
    os.setxattr(top.path / "old", OPAQUE_XATTR, b"y")
    (top.path / "swapped").symlink_to("same")
    assert shown([base], [base, top]) == [
        "added /new",
        "changed /swapped kind",
        "removed /etc/group",
        "changed /etc/passwd content, time",
        "added /new/file",
        "removed /old/a",
    ]
    assert shown([base], [base]) == []
    assert {one.kind for one in differences([base, top], [base])} == {"added", "removed", "changed"}


def test_attributes_count_and_times_of_directories_do_not(tmp_path: Path) -> None:
    one, two = layer(tmp_path, "one", "d/a", "d/b", "d/c"), layer(tmp_path, "two", "d/a", "d/b", "d/c")
    os.chown(two.path / "d/a", 7, 7)
    (two.path / "d/b").chmod(0o600)
    os.setxattr(two.path / "d/c", "user.x", b"y")
    os.utime(two.path / "d", (5, 5))
    assert list(differences([one], [two])) == [
        Change("changed", "/d/a", "owner"),
        Change("changed", "/d/b", "mode"),
        Change("changed", "/d/c", "attributes"),
    ]
