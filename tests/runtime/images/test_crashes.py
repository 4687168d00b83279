"""A writer that is killed at any step leaves a store that verifies, and the next one finishes what it began."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from runtime.images.collection import collect
from runtime.images.descriptors import LAYER_GZIP, digest_of
from runtime.images.ingest import ingesting
from runtime.images.layers import settle
from runtime.images.model import ImageConfig
from runtime.images.store import Store
from runtime.images.verification import verify_store
from tests.runtime.images.images import bring, described, tar_of

pytestmark = [pytest.mark.root, pytest.mark.no_cover]

FILES = {"a": b"x" * 3000, "folder/b": b"y", ".wh.gone": b""}
# What changes a file system, as Python announces it (sys.addaudithook).
EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.link", "os.setxattr", "os.utime")


def steps_until_done(work: Callable[[], object], kill_at: int) -> int:
    """Do the work in a child that kills itself before the step ``kill_at``. Returns 0 once it has none so high."""
    child = os.fork()
    if child == 0:
        count = 0

        def watch(event: str, arguments: object) -> None:
            nonlocal count
            if event in EVENTS:
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(watch)
            work()
        except BaseException as error:  # a child of a test must not go on as one
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), "the work failed"
    return 0 if status == 0 else kill_at


def ingest(root: Path) -> None:
    bring(Store(root), "came:1", FILES, LAYER_GZIP)


def build(root: Path) -> None:
    store = Store(root)
    with store.building(lambda line: None), store.scratch() as scratch:
        (scratch / "root").mkdir()
        (scratch / "root" / "file").write_text("x")
        layer = store.add_layer(scratch / "root", "test", settle(scratch / "root", 0))
        store.remember("key", layer)
        store.tag("built:1", ImageConfig(), (layer,))


def remove(root: Path) -> None:
    store = Store(root)
    store.untag("came:1")
    collect(store, lambda line: None, runs=root / "runs")


@pytest.mark.parametrize(("before", "work"), [(Store, ingest), (Store, build), (ingest, remove)])
def test_a_kill_at_any_step_leaves_a_store_that_verifies(
    memory: Path, before: Callable[[Path], object], work: Callable[[Path], None]
) -> None:
    step = killed = 1
    while killed:
        root = memory / str(step)
        before(root)
        killed = steps_until_done(partial(work, root), step)
        if killed:
            store = Store(root)
            assert verify_store(store, (), lambda line: None) == [], f"killed before step {step}"
            assert store.leftovers() == (), f"killed before step {step}"
            if step % 4 == 0:
                before(root)
                work(root)
                assert verify_store(store, (), lambda line: None) == []
        step += 1
    assert step > 25


def test_a_store_of_the_old_format_is_brought_over_whenever_it_is_killed(memory: Path) -> None:
    def old(root: Path) -> Store:
        """A store with an image, in the files of before."""
        build(root)
        store = Store(root)
        image = store.get("built:1")
        config = store.layout.path(image.id).read_bytes()
        (root / "images").mkdir()
        (root / "images" / f"{image.id[7:]}.json").write_bytes(config)
        (root / "references.json").write_text(f'{{"built:1": "{image.id}", "gone": "sha256:{"0" * 64}"}}')
        for name in ("index.json", "oci-layout", "writers", "commit"):
            (root / name).unlink()
        for path in (root / "blobs" / "sha256").iterdir():
            path.unlink()
        return Store(root)

    step = killed = 1
    while killed:
        store = old(memory / str(step))
        killed = steps_until_done(partial(store.find, "built:1"), step)
        image = store.get("built:1")
        assert (image.layers[0].path / "file").read_text() == "x"
        assert store.references() == ("built:1",)
        assert not (store.root / "references.json").exists() and not (store.root / "images").exists()
        assert verify_store(store, (), lambda line: None) == []
        step += 1
    assert step > 10


def test_many_bring_in_the_same_image_at_once_besides_a_build(memory: Path) -> None:
    root = memory / "store"
    children = []
    for number in range(6):
        child = os.fork()
        if child == 0:
            try:
                ingest(root)
                build(root)
                bring(Store(root), f"own:{number}", {f"file{number}": b"x"}, LAYER_GZIP)
            except BaseException as error:
                print(repr(error), file=sys.stderr)
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
    store = Store(root)
    assert store.references() == ("built:1", "came:1", *(f"own:{number}" for number in range(6)))
    assert verify_store(store, (), lambda line: None) == []
    assert len([path for path in (root / "layers").iterdir() if path.is_dir()]) == 2 + 6


def test_threads_bring_in_layers_of_one_image_at_once(store: Store) -> None:
    tars = [tar_of({f"file{number}": os.urandom(50_000)}) for number in range(8)]
    with ingesting(store, print) as ingest:
        threads = [
            threading.Thread(target=ingest.layer, args=(described(tar), digest_of(tar), iter((tar,)))) for tar in tars
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(store.layer(digest_of(tar)) for tar in tars)
    assert verify_store(store, (), lambda line: None) == []
