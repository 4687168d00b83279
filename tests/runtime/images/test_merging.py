"""Images of more layers than an overlay has: containers, collection and verification see what all of them show."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import PrerequisiteError
from runtime.images import merging
from runtime.images.collection import collect, disk_bytes
from runtime.images.difference import differences
from runtime.images.layers import settle
from runtime.images.merging import directories, link_merged, mountable
from runtime.images.model import Image, ImageConfig, Layer
from runtime.images.store import Store
from runtime.images.verification import verify_store
from runtime.plan.constants import MS_RDONLY
from runtime.unionfs import detached, mount_api
from runtime.unionfs.depth import LAYERS_LIMIT, merged_count
from runtime.unionfs.lookup import OPAQUE_XATTR
from tests.runtime.images.test_crashes import steps_until_done

pytestmark = pytest.mark.root

COUNT = LAYERS_LIMIT + 120
SEAM = merged_count(COUNT)  # the layer of this number is the lowest that is not merged


def fill(tree: Path, number: int) -> None:
    """Give a layer what an overlay resolves: names that others have, that are deleted, and hidden directories."""
    (tree / "last").write_text(str(number))
    (tree / "each").mkdir()
    (tree / "each" / str(number)).write_text(str(number))
    if number in (0, SEAM + 5):
        for name in ("hidden", "replaced"):
            (tree / name).mkdir()
            (tree / name / f"of-{number}").write_text("x")
        os.link(tree / "hidden" / f"of-{number}", tree / f"link-{number}")
    if number in (10, SEAM, SEAM + 10):  # deleted below, across and above the seam
        for gone in range(number - 10, number, 5):
            os.mknod(tree / "each" / str(gone), stat.S_IFCHR, os.makedev(0, 0))
    if number in (20, SEAM + 20):
        (tree / "hidden").mkdir(mode=0o711)
        os.setxattr(tree / "hidden", OPAQUE_XATTR, b"y")
        (tree / "hidden" / "new").write_text(str(number))
        os.mknod(tree / "replaced", stat.S_IFCHR, os.makedev(0, 0))
    if number == 30:
        os.chown(tree / "each", 7, 8)
        (tree / "each").chmod(0o2750)


def build(store: Store, reference: str, numbers: Sequence[int]) -> Image:
    layers: list[Layer] = []
    with store.building(print):
        for number in numbers:
            with store.scratch() as scratch:
                tree = scratch / "root"
                tree.mkdir()
                fill(tree, number)
                layers.append(store.add_layer(tree, "test", settle(tree, 0)))
        return store.tag(reference, ImageConfig(), layers)


@pytest.fixture
def deep(memory: Path) -> Store:
    """A store in memory with the image ``deep`` of COUNT layers."""
    store = Store(memory / "store")
    build(store, "deep", range(COUNT))
    return store


@contextmanager
def overlay(paths: Sequence[str]) -> Iterator[Path]:
    """The kernel's overlay of these directories, bottom first."""
    made = detached.overlay_by_options(detached.Stack(tuple(reversed(paths)), None, "union-test"))
    try:
        yield Path(f"/proc/self/fd/{made}")
    finally:
        os.close(made)


def problems(store: Store) -> list[str]:
    return [f"{one.where}: {one.what}" for one in verify_store(store, (), lambda line: None)]


def gathered(store: Store, **options: Any) -> int:
    return collect(store, print, runs=store.root / "runs", **options).merged


def test_the_kernel_shows_all_layers_as_they_are_read_without_it(deep: Store, tmp_path: Path) -> None:
    image = deep.get("deep")
    shown = mountable(image.layers)
    assert len(shown) == COUNT - SEAM + 1 <= LAYERS_LIMIT
    with overlay(directories(image.layers)) as root:
        assert not list(differences(image.layers, [Layer("", root)]))
        names = {int(name) for name in os.listdir(root / "each")}
        gone = {number - step for number in (10, SEAM, SEAM + 10) for step in (10, 5)}
        assert names == {*range(COUNT)} - gone and (root / "last").read_text() == str(COUNT - 1)
        assert os.listdir(root / "hidden") == ["new"] and not (root / "replaced").exists()
    with overlay([str(shown[0].path)]) as root:
        assert not list(differences(image.layers[:SEAM], [Layer("", root)]))
        status = (root / "each").stat()
        assert os.listdir(root / "hidden") == ["new"] and not (root / "replaced").exists()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) != (7, 8, 0o2750)  # layer 31 has it, too
    assert not [path for path in shown[0].path.rglob("*") if stat.S_ISCHR(path.lstat().st_mode)]
    assert OPAQUE_XATTR not in os.listxattr(shown[0].path / "hidden")


def test_few_layers_are_as_they_were(deep: Store) -> None:
    layers = deep.get("deep").layers[:LAYERS_LIMIT]
    assert mountable(layers) == layers and mountable(()) == ()
    assert mountable((*layers, *layers)) == (*layers, *layers)  # each counts once
    assert not (deep.root / "merged").exists()


def test_images_that_begin_with_the_same_layers_share_what_is_merged(deep: Store) -> None:
    below = directories(deep.get("deep").layers)[0]
    for count in (LAYERS_LIMIT + 1, COUNT - 1, LAYERS_LIMIT + LAYERS_LIMIT // 2 - 1):
        shorter = build(deep, str(count), range(count))
        assert directories(shorter.layers)[0] == below
    other = build(deep, "other", (*range(1, COUNT), 0))
    assert directories(other.layers)[0] != below
    assert len([path for path in (deep.root / "merged").iterdir() if path.is_dir()]) == 2


def test_files_take_no_more_disk(deep: Store) -> None:
    merged = mountable(deep.get("deep").layers)[0].path
    assert (merged / "last").samefile(deep.get("deep").layers[SEAM - 1].path / "last")
    assert (merged / "each" / "7").samefile(deep.get("deep").layers[7].path / "each" / "7")


def test_a_copied_index_has_what_is_merged(deep: Store, tmp_path: Path) -> None:
    image = deep.get("deep")
    merged = mountable(image.layers)[0]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for layer in (*image.layers, merged):
        (elsewhere / layer.path.name).symlink_to(layer.path)
    deep.copy_index([image], tmp_path / "copy", str(elsewhere))
    link_merged([image], tmp_path / "copy", str(elsewhere))
    copied = mountable(Store(tmp_path / "copy").get("deep").layers)
    assert copied[0].path.readlink() == elsewhere / merged.path.name and len(copied) == COUNT - SEAM + 1


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EMLINK, errno.EPERM])
def test_files_that_cannot_have_a_further_name_are_copied(
    deep: Store, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    link = os.link

    def refuse(source: str, target: str, **options: Any) -> None:
        if "/layers/" in source:
            raise OSError(number, os.strerror(number), source)
        link(source, target, **options)

    monkeypatch.setattr(os, "link", refuse)
    image = deep.get("deep")
    merged = mountable(image.layers)[0]
    assert not (merged.path / "last").samefile(image.layers[SEAM - 1].path / "last")
    assert not list(differences(image.layers[:SEAM], [merged])) and problems(deep) == []


def test_a_collection_keeps_what_an_image_or_a_mount_has_and_nothing_else(deep: Store) -> None:
    image = deep.get("deep")
    merged = mountable(image.layers)[0].path
    assert gathered(deep) == 0 and merged.is_dir()
    deep.untag("deep")
    assert gathered(deep, dry_run=True) == 1 and merged.is_dir()
    assert gathered(deep, keep=[layer.diff_id for layer in image.layers], keep_merged=[merged.name]) == 0
    target = deep.root.parent / "mounted"
    target.mkdir()
    mount_api.mount("union-test", str(target), "overlay", MS_RDONLY, f"lowerdir={merged}:{target}")
    try:
        assert gathered(deep) == 0 and merged.is_dir()
    finally:
        mount_api.unmount(str(target))
    assert gathered(deep) == 1 and os.listdir(deep.root / "merged") == [] and problems(deep) == []


def test_what_is_freed_is_what_the_disk_gets_back(deep: Store) -> None:
    image = deep.get("deep")
    layers = sum(disk_bytes(layer.path) for layer in image.layers)
    merged = mountable(image.layers)[0].path
    folders = sum(path.lstat().st_blocks for path in (merged, *merged.rglob("*")) if path.is_dir())
    deep.untag("deep")
    planned = collect(deep, print, dry_run=True, runs=deep.root / "runs")
    assert planned == collect(deep, print, runs=deep.root / "runs") and (planned.layers, planned.merged) == (COUNT, 1)
    documents = planned.freed_bytes - layers - 512 * folders
    assert 0 < documents < 1 << 20


@pytest.mark.parametrize("damage", ["changed", "added", "removed", "mode"])
def test_what_is_changed_in_a_merged_directory_is_named(deep: Store, damage: str) -> None:
    merged = mountable(deep.get("deep").layers)[0].path
    if damage == "changed":
        (merged / "last").unlink()
        (merged / "last").write_text("other")
    elif damage == "added":
        (merged / "more").touch()
    elif damage == "removed":
        (merged / "each" / "7").unlink()
    else:
        merged.chmod(0o700)
    assert problems(deep) == [f"{merged}: it shows no more what the layers show that are merged in it"]


@pytest.mark.no_cover
def test_a_kill_at_any_step_leaves_nothing_half_made(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.unionfs.depth.LAYERS_LIMIT", 4)
    step = killed = 1
    while killed:
        store = Store(memory / str(step))
        image = build(store, "deep", (0, 10, 20, 30, 40))
        killed = steps_until_done(partial(mountable, image.layers), step)
        assert problems(store) == [], f"killed before step {step}"
        for path in (store.root / "merged").glob("*"):
            assert merging.read_merged(path) is None or not list(differences(image.layers[:2], [Layer("", path)]))
        below = mountable(image.layers)[0]
        assert not list(differences(image.layers[:2], [below])) and problems(store) == []
        assert store.leftovers() == ()
        step += 1
    assert step > 15


def test_a_store_that_may_not_be_written_is_told(deep: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(merging, "copy_union", refuse)
    with pytest.raises(PrerequisiteError, match="write to the image store: Read-only file system"):
        mountable(deep.get("deep").layers)
