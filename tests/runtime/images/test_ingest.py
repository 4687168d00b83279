"""Bringing images in from elsewhere: verified while they stream, and whole or not at all."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator

import pytest

from runtime.errors import UsageError
from runtime.images.descriptors import LAYER_GZIP, LAYER_ZSTD, digest_of
from runtime.images.ingest import ingesting
from runtime.images.model import Image
from runtime.images.store import Store
from tests.runtime.images.images import COMPRESSIONS, bring, described, documents, pieces, tar_of

pytestmark = pytest.mark.root


@pytest.mark.parametrize("media_type", COMPRESSIONS)
def test_an_image_is_unpacked_while_it_streams_and_read_back_as_it_came(store: Store, media_type: str) -> None:
    tar = tar_of({"a": b"x" * 5000, "folder/b": b"y"})
    blob = COMPRESSIONS[media_type](tar)
    image = bring(store, "from/elsewhere", {"a": b"x" * 5000, "folder/b": b"y"}, media_type)
    assert image.config.cmd == ("sh",)
    assert (image.layers[0].path / "folder/b").read_bytes() == b"y"
    assert image.layers[0].diff_id == digest_of(tar)
    with store.open_blob(digest_of(blob)) as file:
        assert file.read() == blob
    assert store.blob_size(digest_of(blob)) == len(blob)
    assert store.get("from/elsewhere") == image
    with store.building(print):
        assert store.verify(image) == ()


def test_a_blob_that_was_never_stored_is_made_again_of_the_layers_files(store: Store, tiny: Image) -> None:
    digest = tiny.layers[0].diff_id
    assert not store.layout.has(digest)
    assert store.has_blob(digest)
    with store.open_blob(digest) as file:
        content = file.read()
    assert digest_of(content) == digest
    assert store.blob_size(digest) == len(content)


def test_a_layer_that_is_there_is_not_asked_for(store: Store) -> None:
    image = bring(store, "one", {"a": b"x"})
    record = store.record(image.layers[0].diff_id)
    assert record is not None
    blob = record.descriptor

    def never() -> Iterator[bytes]:
        raise AssertionError
        yield b""

    with ingesting(store, print) as ingest:
        assert ingest.has_layer(blob, image.layers[0].diff_id)
        assert ingest.layer(blob, image.layers[0].diff_id, never()) == image.layers[0]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda blob: blob[:-1], "cut off after"),
        (lambda blob: blob + b"x", "longer than"),
        (lambda blob: blob[:-5] + bytes((blob[-5] ^ 1,)) + blob[-4:], "gzip: |its digest is"),
        (lambda blob: gzip.compress(tar_of({"other": b""})), "longer than|its digest is|cut off"),
        (lambda blob: b"", "cut off after 0"),
    ],
)
def test_of_a_wrong_blob_nothing_remains(store: Store, change: object, what: str) -> None:
    tar = tar_of({"a": os.urandom(20_000)})
    blob = gzip.compress(tar)
    with ingesting(store, print) as ingest, pytest.raises(UsageError, match=what):
        ingest.layer(described(blob), digest_of(tar), pieces(change(blob)))  # type: ignore[operator]
    assert not store.has_blob(digest_of(blob))
    assert store.layer(digest_of(tar)) is None
    assert store.leftovers() == ()


def test_a_tar_with_another_digest_than_the_configuration_says_is_refused(store: Store) -> None:
    blob = gzip.compress(tar_of({"a": b"x"}))
    with ingesting(store, print) as ingest, pytest.raises(UsageError, match="its tar has the digest"):
        ingest.layer(described(blob), "sha256:" + "0" * 64, pieces(blob))
    assert not store.has_blob(digest_of(blob))


def test_what_a_client_raises_leaves_nothing(store: Store) -> None:
    blob = gzip.compress(tar_of({"a": os.urandom(20_000)}))

    def broken() -> Iterator[bytes]:
        yield blob[:10_000]
        raise ConnectionResetError

    with ingesting(store, print) as ingest, pytest.raises(ConnectionResetError):
        ingest.layer(described(blob), "sha256:" + "0" * 64, broken())
    assert store.leftovers() == ()


def test_an_image_whose_layers_are_missing_gets_no_name(store: Store) -> None:
    tar = tar_of({"a": b"x"})
    config, manifest = documents([(described(tar), tar)])
    with ingesting(store, print) as ingest:
        with pytest.raises(UsageError, match=r"configuration of x: sha256:\w+ is missing"):
            ingest.image("x", manifest)
        ingest.blob(described(config), pieces(config))
        with pytest.raises(UsageError, match="x: its layer sha256:"):
            ingest.image("x", manifest)
    assert store.references() == ()


def test_the_same_layer_of_another_compression_is_kept_as_it_came_too(store: Store) -> None:
    one = bring(store, "one", {"a": b"x"}, LAYER_GZIP)
    two = bring(store, "two", {"a": b"x"}, LAYER_ZSTD)
    assert one.layers == two.layers
    assert len(list((store.root / "blobs/sha256").iterdir())) == 2 + 1 + 2  # blobs, one configuration, manifests
