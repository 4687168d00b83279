"""Saving and loading: the same image comes back, from what we write and from what others do; nothing half remains."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard

from runtime.errors import UsageError
from runtime.images.compression import Compression
from runtime.images.descriptors import DOCKER_INDEX, DOCKER_LAYER, DOCKER_MANIFEST, LAYER_GZIP, digest_of
from runtime.images.load import load
from runtime.images.model import Image
from runtime.images.save import Format, save
from runtime.images.store import Store
from tests.runtime.images.images import bring, described, documents, tar_of

pytestmark = pytest.mark.root


def saved(store: Store, *references: str, format: Format = "oci", compression: Compression = "none") -> bytes:
    target = io.BytesIO()
    save(store, references, target, lambda line: None, format=format, compression=compression)
    return target.getvalue()


def loaded(store: Store, content: bytes, tmp_path: Path, **options: str) -> tuple[Image, ...]:
    path = tmp_path / "archive"
    path.write_bytes(content)
    return load(store, path, lambda line: None, **options)


def layout(files: dict[str, bytes], named: list[dict[str, object]]) -> bytes:
    """An oci-archive with these blobs, and an index of these descriptors."""
    return tar_of(
        {
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": json.dumps({"schemaVersion": 2, "manifests": named}).encode(),
            **{f"blobs/sha256/{digest_of(content)[7:]}": content for content in files.values()},
        }
    )


def named(content: bytes, name: str = "x", media_type: str = "", **more: object) -> dict[str, object]:
    annotations = {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
    about = {"mediaType": media_type or "application/vnd.oci.image.manifest.v1+json"}
    return {**about, "digest": digest_of(content), "size": len(content), **annotations, **more}


@pytest.mark.parametrize(
    ("format", "compression"), [("oci", "none"), ("oci", "gzip"), ("oci", "zstd"), ("docker", "none")]
)
def test_an_image_comes_back_as_it_was(
    store: Store, tiny: Image, tmp_path: Path, format: Format, compression: Compression
) -> None:
    content = saved(store, "tiny", format=format, compression=compression)
    assert content == saved(store, "tiny", format=format, compression=compression)
    other = Store(tmp_path / "other")
    (image,) = loaded(other, content, tmp_path)
    assert (image.id, image.config, image.history) == (tiny.id, tiny.config, tiny.history)
    assert image.layers[0].diff_id == tiny.layers[0].diff_id
    with other.building(print):
        assert other.verify(image) == ()
    if compression == "none":
        assert saved(other, image.reference, format=format).count(b"busybox") == content.count(b"busybox")


def test_what_came_from_elsewhere_leaves_with_its_digests(store: Store, tmp_path: Path) -> None:
    bring(store, "from/elsewhere", {"a": b"x"}, LAYER_GZIP)
    digest = store.manifest("from/elsewhere").digest
    other = Store(tmp_path / "other")
    loaded(other, saved(store, "from/elsewhere"), tmp_path)
    assert other.manifest("from/elsewhere").digest == digest


def test_several_images_share_their_layers_in_an_archive(store: Store, tiny: Image, tmp_path: Path) -> None:
    store.alias("tiny", "again")
    other = Store(tmp_path / "other")
    images = loaded(other, saved(store, "tiny", "again"), tmp_path)
    assert [image.reference for image in images] == ["tiny", "again"]
    assert len(saved(store, "tiny", "again")) < 1.1 * len(saved(store, "tiny"))


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_an_archive_may_be_compressed_as_a_whole(store: Store, tiny: Image, tmp_path: Path, pack: object) -> None:
    content = pack(saved(store, "tiny", format="docker"))  # type: ignore[operator]
    (image,) = loaded(Store(tmp_path / "other"), content, tmp_path)
    assert image.id == tiny.id


def test_an_archive_may_come_through_a_pipe_and_a_layout_lie_in_a_directory(
    store: Store, tiny: Image, tmp_path: Path
) -> None:
    path = tmp_path / "archive"
    path.write_bytes(saved(store, "tiny"))
    with subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        (image,) = load(Store(tmp_path / "piped"), process.stdout, print)  # type: ignore[arg-type]
    assert image.id == tiny.id
    (tmp_path / "folder").mkdir()
    subprocess.run(["tar", "-xf", str(path), "-C", str(tmp_path / "folder")], check=True)
    (image,) = load(Store(tmp_path / "other"), tmp_path / "folder", print)
    assert image.id == tiny.id


@pytest.mark.parametrize("media_type", [DOCKER_MANIFEST, ""])
def test_dockers_manifests_are_read(store: Store, tmp_path: Path, media_type: str) -> None:
    tar = tar_of({"a": b"x"})
    blob = gzip.compress(tar)
    config, manifest = documents([(described(blob, DOCKER_LAYER), tar)])
    archive = layout({"c": config, "m": manifest, "b": blob}, [named(manifest, media_type=media_type)])
    (image,) = loaded(store, archive, tmp_path)
    assert (image.layers[0].path / "a").read_bytes() == b"x"


def of_platforms() -> tuple[bytes, bytes, dict[str, str]]:
    """An archive with an index of three platforms, the index, and what a file holds on each."""
    files: dict[str, bytes] = {}
    listed, holds = [], {}
    for platform in ("linux/amd64", "linux/arm/v7", "unknown/unknown"):
        tar = tar_of({"platform": platform.encode()})
        config, manifest = documents([(described(tar), tar)])
        system, machine, *variant = platform.split("/")
        about = {"os": system, "architecture": machine, **({"variant": variant[0]} if variant else {})}
        listed.append(named(manifest, "", platform=about))
        files |= {f"{platform}{i}": content for i, content in enumerate((tar, config, manifest))}
        holds[platform] = platform
    index = json.dumps({"schemaVersion": 2, "manifests": listed}).encode()
    archive = layout({**files, "index": index}, [named(index, "x", DOCKER_INDEX)])
    return archive, index, holds


@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm/v7", "linux/arm"])
def test_a_platform_is_chosen_from_an_index(store: Store, tmp_path: Path, platform: str) -> None:
    (image,) = loaded(store, of_platforms()[0], tmp_path, platform=platform)
    assert (image.layers[0].path / "platform").read_text().startswith(platform)


def test_a_platform_that_is_not_there_is_an_error_that_lists_them(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no image for linux/s390x") as caught:
        loaded(store, of_platforms()[0], tmp_path, platform="linux/s390x")
    assert caught.value.hint == "there are: linux/amd64, linux/arm/v7"


def test_a_layer_that_occurs_twice_empty_layers_and_very_many_of_them(store: Store, tmp_path: Path) -> None:
    empty, nothing, tar = tar_of({}), b"", tar_of({"a": b"x"})
    many = [tar_of({f"f{number}": b""}) for number in range(510)]
    tars = [tar, empty, tar, nothing, empty, *many]
    config, manifest = documents([(described(each), each) for each in tars])
    files = {str(number): content for number, content in enumerate((*tars, config, manifest))}
    (image,) = loaded(store, layout(files, [named(manifest)]), tmp_path)
    assert len(image.layers) == len(tars)
    assert len({layer.path for layer in image.layers}) == len(set(tars))
    (again,) = loaded(Store(tmp_path / "other"), saved(store, "x", format="docker"), tmp_path)
    assert again.id == image.id


def test_links_in_dockers_old_archives_are_followed(store: Store, tmp_path: Path) -> None:
    tar = tar_of({"a": b"x"})
    config, _ = documents([(described(tar), tar), (described(tar), tar)])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        listed = [{"Config": "c.json", "RepoTags": ["x:1", "x:2"], "Layers": ["one/layer.tar", "two/layer.tar"]}]
        for name, content in (
            ("c.json", config),
            ("manifest.json", json.dumps(listed).encode()),
            ("one/layer.tar", tar),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("two/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../one/layer.tar"
        archive.addfile(link)
    assert [image.reference for image in loaded(store, buffer.getvalue(), tmp_path)] == ["x:1", "x:2"]


def valid() -> tuple[dict[str, bytes], bytes]:
    tar = tar_of({"a": os.urandom(3000)})
    config, manifest = documents([(described(tar), tar)])
    return {"c": config, "m": manifest, "b": tar}, manifest


@pytest.mark.parametrize(
    ("archive", "what"),
    [
        (b"", "neither index.json nor manifest.json"),
        (b"\x1f\x8b\x08junk", "gzip: "),
        (b"BZh91AY", "compressed with bzip2"),
        (os.urandom(5000), "no tar header|gzip|zstd"),
        (tar_of({"manifest.json": b"{}"}), "manifest.json: Expected `array`"),
        (tar_of({"manifest.json": b"[]"}), "it names no image"),
        (tar_of({"manifest.json": b'[{"Config": "../../etc/passwd", "RepoTags": ["x"]}]'}), "it has no file"),
        (tar_of({"manifest.json": b"[" * 100_000}), "manifest.json: "),
        (tar_of({"manifest.json": b" " * (5 << 20)}), "longer than"),
        (layout({}, [named(b"nothing")]), "it has no file blobs/sha256/"),
        (layout({}, [{**named(b""), "digest": "sha256:../../../etc/passwd"}]), "digest .* not sha256"),
        (layout({}, [{**named(b""), "digest": "sha512:" + "0" * 128}]), "digest .* not sha256"),
        (layout({"m": b'{"schemaVersion": 1}'}, [named(b'{"schemaVersion": 1}')]), "schema version 1"),
        (layout(valid()[0], [])[:-3000], "cut off|it names no image"),
    ],
)
def test_a_wrong_archive_is_one_error_and_leaves_nothing(
    store: Store, tmp_path: Path, archive: bytes, what: str
) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        loaded(store, archive, tmp_path)
    assert "\n" not in caught.value.message
    assert (store.references(), store.leftovers()) == ((), ())


def test_indexes_in_indexes_end(store: Store, tmp_path: Path) -> None:
    files, inner = {}, b"{}"
    for depth in range(10):
        index = json.dumps({"schemaVersion": 2, "manifests": [named(inner, "", DOCKER_INDEX)]}).encode()
        files[str(depth)] = inner = index
    with pytest.raises(UsageError, match="more than 4 indexes"):
        loaded(store, layout(files, [named(inner, media_type=DOCKER_INDEX)]), tmp_path)


def test_an_image_without_a_name_is_given_one(store: Store, tmp_path: Path) -> None:
    files, manifest = valid()
    with pytest.raises(UsageError, match="an image in it has no name"):
        loaded(store, layout(files, [named(manifest, "")]), tmp_path)
    (image,) = loaded(store, layout(files, [named(manifest, "")]), tmp_path, reference="mine")
    assert store.get("mine") == image


@pytest.mark.parametrize("at", range(0, 12))
def test_an_archive_that_is_cut_off_anywhere_leaves_nothing(store: Store, tmp_path: Path, at: int) -> None:
    files, manifest = valid()
    whole = layout(files, [named(manifest)])
    end = len(whole.rstrip(b"\0"))
    with pytest.raises(UsageError):
        loaded(store, whole[: end * at // 12], tmp_path)
    assert (store.references(), store.leftovers()) == ((), ())
