from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import TestbedError, UsageError
from runtime.images.compression import MEDIA_TYPES, Compression
from runtime.images.descriptors import LAYER_GZIP, Manifest
from runtime.images.model import Image, ImageConfig
from runtime.images.rootfs import lookup
from runtime.images.store import Store
from runtime.registry.errors import RegistryError
from runtime.registry.pull import pull
from runtime.registry.push import push
from tests.runtime.images.images import tar_of
from tests.runtime.registry.conftest import Open, client_of
from tests.runtime.registry.images import push_image
from tests.runtime.registry.servers import Exchange, Faulty, faulty

pytestmark = pytest.mark.root


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def before(registry: str) -> Iterator[Faulty]:
    with faulty(registry) as server:
        yield server


def made(store: Store, name: str, *contents: str) -> Image:
    """An image that was made here, with a layer for each content."""
    layers = []
    with store.building(print), store.scratch() as scratch:
        for number, content in enumerate(contents):
            tree = scratch / f"{number}"
            tree.mkdir()
            (tree / f"file{number}").write_text(content)
            layers.append(store.add_layer(tree, "test"))
        return store.tag(name, ImageConfig(cmd=("/x",)), layers)


def test_an_image_that_was_made_here_comes_back(store: Store, before: Faulty, tmp_path: Path) -> None:
    image = made(store, "app", "one", "two")
    lines: list[str] = []
    with client_of(tmp_path) as client:
        digest = push(store, client, "app", f"{before.host}/made/app:1", lines.append)
        assert digest == store.manifest("app").digest
        other = Store(tmp_path / "other")
        back = pull(other, client, f"{before.host}/made/app:1", print)
        assert back.id == image.id and other.verify(back) == ()
        found = lookup("file1", back.layers)
        assert found is not None and found.read_text() == "two"
        before.requests.clear()
        assert push(store, client, "app", f"{before.host}/made/app:2", lines.append) == digest
    assert before.asked("POST") == before.asked("PATCH") == [] and len(before.asked("PUT")) == 1
    assert sum("are there already" in line for line in lines) == 3
    assert store.leftovers() == () and list(store.layout.tmp.iterdir()) == []


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_layers_that_were_built_here_are_compressed_on_the_way(
    store: Store, registry: str, open_repository: Open, tmp_path: Path, compression: Compression
) -> None:
    image = made(store, "app", "one" * 10_000, "two", "one" * 10_000)
    with client_of(tmp_path) as client:
        digest = push(store, client, "app", f"{registry}/{compression}/app:1", print, compression)
        back = pull(Store(tmp_path / "other"), client, f"{registry}/{compression}/app@{digest}", print)
    assert back.id == image.id and digest != store.manifest("app").digest
    document = open_repository(registry, f"{compression}/app").manifest("1").document
    assert isinstance(document, Manifest)
    assert {layer.media_type for layer in document.layers} == {MEDIA_TYPES[compression]}
    assert document.layers[0].size < 2000
    assert list(store.layout.tmp.iterdir()) == []


def test_layers_are_mounted_from_where_the_store_has_them(
    store: Store, open_repository: Open, before: Faulty, tmp_path: Path
) -> None:
    push_image(open_repository(before.host, "here/base"), tmp_path, "1", [tar_of({"a": b"x"}), tar_of({"b": b"y"})])
    lines: list[str] = []
    with client_of(tmp_path) as client:
        pull(store, client, f"{before.host}/here/base:1", print)
        before.requests.clear()
        push(store, client, f"{before.host}/here/base:1", f"{before.host}/here/copy:1", lines.append)
    assert sum("in another repository" in line for line in lines) == 3
    assert len(before.asked("PUT")) == 1 and all("mount=" in path for path in before.asked("POST"))


def test_skopeo_pulls_what_we_push(store: Store, registry: str, tmp_path: Path) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed: apt-get install skopeo")
    made(store, "app", "for skopeo")
    with client_of(tmp_path) as client:
        push(store, client, "app", f"{registry}/skopeo/app:1", print)
        there = f"docker://{registry}/skopeo/app"
        copy = ["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"]
        subprocess.run([*copy, f"{there}:1", f"{there}:2"], check=True)
        subprocess.run([*copy, f"{there}:1", f"oci:{tmp_path}/layout:1"], check=True)
        subprocess.run([*copy, "--format=v2s2", f"oci:{tmp_path}/layout:1", f"{there}:3"], check=True)
        images = [pull(Store(tmp_path / f"back{tag}"), client, f"{registry}/skopeo/app:{tag}", print) for tag in (2, 3)]
    for image in images:
        found = lookup("file0", image.layers)
        assert found is not None and found.read_text() == "for skopeo"
    index = json.loads((tmp_path / "layout/index.json").read_text())
    assert index["manifests"][0]["mediaType"] != LAYER_GZIP


def test_another_digest_than_the_name_says_is_refused(store: Store, registry: str, tmp_path: Path) -> None:
    made(store, "app", "one")
    with client_of(tmp_path) as client, pytest.raises(UsageError, match="its digest is sha256:"):
        push(store, client, "app", f"{registry}/digest/app@sha256:" + "0" * 64, print)


def test_a_push_that_fails_says_so_and_leaves_nothing(store: Store, before: Faulty, tmp_path: Path) -> None:
    made(store, "app", "one", "two")

    def rule(exchange: Exchange) -> bool:
        if exchange.command == "PUT" and "/blobs/" in exchange.path:
            exchange.rfile.read(exchange.length)
            exchange.answer(413, {}, b'{"errors":[{"code":"SIZE_INVALID","message":"too large"}]}')
            return True
        return False

    before.rule = rule
    with client_of(tmp_path) as client, pytest.raises(RegistryError, match="it answered 413: too large"):
        push(store, client, "app", f"{before.host}/fail/app:1", print)
    assert list(store.layout.tmp.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "target", "said"),
    [
        ("none", "127.0.0.1:1/a", "no image 'none'"),
        ("app", "a", "which registry has"),
        ("app", "127.0.0.1:1/A", "is not an image's name"),
        ("app", "127.0.0.1:1/a", "Connection refused"),
    ],
)
def test_what_cannot_be_pushed_is_said(store: Store, tmp_path: Path, name: str, target: str, said: str) -> None:
    made(store, "app", "one")
    with client_of(tmp_path) as client, pytest.raises(TestbedError, match=said) as caught:
        push(store, client, name, target, print)
    assert isinstance(caught.value, UsageError | RegistryError)
