"""What the store says of its images."""

from __future__ import annotations

import json

import pytest

from runtime.errors import UsageError
from runtime.images.descriptors import LAYER_GZIP
from runtime.images.listing import history, inspect, list_images
from runtime.images.model import History, Image, ImageConfig
from runtime.images.reference import check_name, spellings
from runtime.images.store import Store
from tests.runtime.images.images import bring

pytestmark = pytest.mark.root


def test_images_are_listed_with_their_sizes_and_what_is_wrong(store: Store, tiny: Image) -> None:
    came = bring(store, "from/elsewhere", {"a": b"x" * 10_000}, LAYER_GZIP)
    store.alias("tiny", "again")
    listed = {one.reference: one for one in list_images(store)}
    assert list(listed) == ["again", "from/elsewhere", "tiny"]
    assert listed["again"].id == listed["tiny"].id == tiny.id
    assert listed["from/elsewhere"].size_bytes == 10_240 + 10_240  # the file in whole blocks, the archive in records
    (came.layers[0].path.with_name(came.layers[0].path.name + ".json")).unlink()
    store.layout.path(tiny.id).unlink()
    problems = {one.reference: one.problem for one in list_images(store)}
    assert problems["from/elsewhere"] == "1 of its layers are missing"
    assert problems["tiny"].startswith(f"configuration of tiny: {tiny.id} is missing")


def test_an_image_is_inspected_in_full(store: Store, tiny: Image) -> None:
    found = inspect(store, "tiny")
    assert json.loads(json.dumps(found)) == found
    assert found["id"] == tiny.id
    assert found["configuration"]["rootfs"]["diff_ids"] == [tiny.layers[0].diff_id]
    assert found["layers"][0]["path"] == str(tiny.layers[0].path)
    assert found["manifest"]["config"]["digest"] == tiny.id
    with pytest.raises(UsageError, match="no image 'nope'"):
        inspect(store, "nope")


def test_history_names_the_layer_of_each_step_that_made_one(store: Store, tiny: Image) -> None:
    layer = tiny.layers[0]
    with store.building(print):
        store.tag("x", ImageConfig(), (layer, layer), (History("FROM", False), History("ENV", True)))
    steps = history(store, "x")
    assert [(step.created_by, step.diff_id) for step in steps] == [
        ("FROM", layer.diff_id),
        ("ENV", ""),
        ("busybox", layer.diff_id),  # its maker wrote less history than there are layers
    ]
    assert steps[0].size_bytes == store.blob_size(layer.diff_id)


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("docker.io/library/nginx:latest", "nginx"),
        ("docker.io/library/nginx", "nginx:latest"),
        ("bitnami/redis", "docker.io/bitnami/redis:latest"),
        ("mine", "localhost/mine:latest"),
        ("localhost/mine", "mine"),
        ("quay.io/a/b", "quay.io/a/b:latest"),
        ("clickme/web:latest", "clickme/web"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
    ],
)
def test_the_same_image_is_found_by_what_people_call_it(asked: str, stored: str) -> None:
    assert spellings(asked)[0] == asked
    assert stored in spellings(asked)


@pytest.mark.parametrize(
    ("asked", "other"),
    [("nginx:1", "nginx"), ("quay.io/nginx", "nginx"), ("a/nginx", "nginx"), ("nginx", "nginx:1")],
)
def test_another_image_is_not(asked: str, other: str) -> None:
    assert other not in spellings(asked)


@pytest.mark.parametrize("name", ["", "A", "a b", "a:", "/a", "a//b", "../a", "a:b:c", "-a", "a" * 300, "a\n", "a@b"])
def test_a_name_that_others_would_not_accept_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no name of an image"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "clickme/web", "host:5000/a/b:v1.2_x", "testbed/base:trixie", "localhost/a__b"])
def test_names_that_others_accept_are_accepted(name: str) -> None:
    assert check_name(name) == name
