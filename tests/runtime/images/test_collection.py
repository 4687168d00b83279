"""Collection removes what nothing needs, and only that; verification sees whatever was changed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import UsageError
from runtime.images.collection import Collected, collect
from runtime.images.descriptors import LAYER_GZIP, LAYER_TAR
from runtime.images.layers import settle
from runtime.images.load import load
from runtime.images.model import Image, ImageConfig, Layer
from runtime.images.save import save
from runtime.images.store import CACHES, Store
from runtime.images.verification import verify_store
from runtime.lease import lease
from tests.runtime.images.images import bring

pytestmark = pytest.mark.root


def gathered(store: Store, tmp_path: Path, **options: Any) -> Collected:
    return collect(store, print, runs=tmp_path / "runs", **options)


def built(store: Store, text: str, name: str = "", key: str = "") -> Layer:
    with store.building(print), store.scratch() as scratch:
        (scratch / "root").mkdir()
        (scratch / "root" / "file").write_text(text)
        layer = store.add_layer(scratch / "root", "test", settle(scratch / "root", 0))
        if key:
            store.remember(key, layer)
        if name:
            store.tag(name, ImageConfig(), (layer,))
        return layer


def problems(store: Store, *references: str) -> list[str]:
    return [f"{one.where}: {one.what}" for one in verify_store(store, references, lambda line: None)]


def test_what_no_image_names_goes_and_the_rest_stays(store: Store, tmp_path: Path) -> None:
    kept, gone = built(store, "kept", "kept"), built(store, "gone", "gone")
    bring(store, "came", {"a": b"x" * 100_000}, LAYER_GZIP)
    for name in ("gone", "came"):
        store.untag(name)
    planned = gathered(store, tmp_path, dry_run=True)
    assert (planned.layers, planned.blobs) == (2, 5)
    assert store.layer(gone.diff_id) is not None
    done = gathered(store, tmp_path)
    assert done == planned
    assert store.layer(kept.diff_id) is not None and store.layer(gone.diff_id) is None
    assert problems(store) == []
    assert gathered(store, tmp_path) == Collected(0, 0, 0, 0, 0)
    assert len(list((store.root / "layers").iterdir())) == 2


def test_the_build_cache_stays_until_it_is_asked_for(store: Store, tmp_path: Path) -> None:
    of_image, of_cache = built(store, "image", "image", "one"), built(store, "cache", key="two")
    assert gathered(store, tmp_path).layers == 0
    assert gathered(store, tmp_path).cache_bytes > 0
    assert store.cached("two") == of_cache
    assert gathered(store, tmp_path, cache=True).layers == 1
    assert (store.cached("one"), store.cached("two")) == (of_image, None)
    assert [path.stem for path in (store.root / "cache").iterdir()] == ["one"]


def test_the_caches_of_run_stay_until_they_are_asked_for(store: Store, tmp_path: Path) -> None:
    built(store, "image", "image")
    cache = store.root / CACHES / "name"
    cache.mkdir(parents=True)
    (cache / "file").write_bytes(b"x" * 100_000)
    assert gathered(store, tmp_path).cache_bytes >= 100_000 and cache.is_dir()
    assert gathered(store, tmp_path, cache=True, dry_run=True).freed_bytes >= 100_000 and cache.is_dir()
    assert gathered(store, tmp_path, cache=True).freed_bytes >= 100_000 and not cache.exists()
    assert problems(store) == []


def test_a_mounted_layer_stays(store: Store, tmp_path: Path) -> None:
    layer = built(store, "mounted")
    for name in ("at", "other"):
        (tmp_path / name).mkdir()
    script = 'mount -t overlay -o "ro,lowerdir=$1:$2" none "$3" && echo mounted && exec sleep 60'
    command = [
        "unshare",
        "-m",
        "sh",
        "-c",
        script,
        "sh",
        str(layer.path),
        str(tmp_path / "other"),
        str(tmp_path / "at"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "mounted\n"
        done = gathered(store, tmp_path)
        process.terminate()
    assert (done.layers, done.mounted) == (0, 1)
    assert gathered(store, tmp_path).layers == 1


def test_nothing_is_collected_while_a_run_lives(store: Store, tmp_path: Path) -> None:
    with lease(f"collected-{os.getpid()}", tmp_path / "runs"), pytest.raises(UsageError, match="is alive"):
        gathered(store, tmp_path)


def test_a_plain_tar_that_the_files_give_is_dropped(store: Store, tiny: Image, tmp_path: Path) -> None:
    with (tmp_path / "archive").open("wb") as archive:
        save(store, ["tiny"], archive, print, format="docker")
    other = Store(tmp_path / "other")
    load(other, tmp_path / "archive", print)
    digest = tiny.layers[0].diff_id
    assert other.layout.has(digest)
    assert gathered(other, tmp_path).freed_bytes > 100_000
    assert not other.layout.has(digest) and other.has_blob(digest)
    assert problems(other) == []


def test_what_is_damaged_is_named(store: Store, tmp_path: Path) -> None:
    layer = built(store, "x", "built")
    image = bring(store, "came", {"a": b"x" * 1000}, LAYER_GZIP)
    assert problems(store) == []
    (layer.path / "file").write_text("other")
    assert problems(store, "built") == [f"layer {layer.diff_id}: its files in {layer.path} were changed"]
    assert problems(store, "came") == []
    (image.layers[0].path / "a").chmod(0o600)
    assert problems(store, "came") == [
        f"layer {image.layers[0].diff_id}: its files in {image.layers[0].path} were changed"
    ]


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "has the digest|cut off|incomplete|truncated"),
        (lambda path: path.write_bytes(b""), "has the digest|truncated|incomplete"),
    ],
)
@pytest.mark.parametrize("which", ["manifest", "configuration", "layer"])
def test_a_damaged_or_missing_blob_is_named(
    store: Store, tmp_path: Path, which: str, damage: Callable[[Path], None], what: str
) -> None:
    image = bring(store, "came", {"a": b"x" * 1000}, LAYER_TAR)
    digests = {
        "manifest": store.manifest("came").digest,
        "configuration": image.id,
        "layer": image.layers[0].diff_id,
    }
    damage(store.layout.path(digests[which]))
    found = problems(store)
    assert found and all("came" in one or digests[which] in one for one in found)
