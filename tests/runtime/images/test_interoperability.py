"""What we write is read by the tools that people use, and what they write by us: the same image id, the same files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.images.layers import settle
from runtime.images.load import load
from runtime.images.model import History, Image, ImageConfig
from runtime.images.save import FORMATS, Format, save
from runtime.images.store import Store
from runtime.images.verification import verify_store
from tests.runtime.images.test_layers import CAPABILITY

pytestmark = pytest.mark.root

NAME = "interop/image:v1"


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(
        bool(missing), reason=f"{', '.join(missing)} not installed: apt-get install {programs[0]}"
    )


@pytest.fixture
def image(store: Store) -> Image:
    """An image of two layers with what layers can hold: whiteouts, an opaque directory, links, capabilities, owners."""
    layers = []
    for number in range(2):
        with store.building(print), store.scratch() as scratch:
            root = scratch / "root"
            (root / "etc").mkdir(parents=True)
            (root / "folder").mkdir()
            if number == 0:
                for name in ("etc/gone", "etc/kept", "folder/hidden"):
                    (root / name).write_text(name)
                os.link(root / "etc/kept", root / "etc/hard")
                (root / "etc/soft").symlink_to("kept")
                os.chown(root / "etc/kept", 1000, 100)
                (root / "etc/kept").chmod(0o4755)
                os.setxattr(root / "etc/kept", "security.capability", CAPABILITY)
                (root / "ünïcode").write_text("x")
                (root / ("long" * 50)).write_text("x")
            else:
                os.mknod(root / "etc/gone", 0o020000, 0)
                os.setxattr(root / "folder", "trusted.overlay.opaque", b"y")
                (root / "folder/seen").write_text("x")
            layers.append(store.add_layer(root, f"step {number}", settle(root, 0)))
    config = ImageConfig(
        env=("A=b",), cmd=("sh", "-c", "true"), working_dir="/etc", user="1000", exposed_ports=("80/tcp",)
    )
    with store.building(print):
        return store.tag(NAME, config, layers, [History(f"step {number}", False) for number in range(2)])


Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run a tool with a storage of its own."""
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "CONTAINERS_STORAGE_CONF": str(tmp_path / "storage.conf"),
    }
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/graph"\nrunroot = "{tmp_path}/run"\n'
    )
    (tmp_path / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')

    def run_it(*words: object) -> str:
        command = [str(word) for word in words]
        if command[0] == "skopeo":
            command[1:1] = ["--policy", str(tmp_path / "policy.json")]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    yield run_it
    # Read-only layers of a driver are otherwise in the way of pytest's removal.
    subprocess.run(["rm", "-rf", str(tmp_path / "graph"), str(tmp_path / "run")], check=False)


def written(store: Store, tmp_path: Path, format: Format, compression: str = "none") -> Path:
    path = tmp_path / f"{format}.tar"
    with path.open("wb") as file:
        save(store, [NAME], file, lambda line: None, format=format, compression=compression)  # type: ignore[arg-type]
    return path


def comes_back(tmp_path: Path, source: Path, image: Image, reference: str = "") -> None:
    """The archive holds the image, with the same files in each layer."""
    other = Store(tmp_path / "other")
    (found,) = load(other, source, lambda line: None, reference=reference)
    assert [layer.diff_id for layer in found.layers] == [layer.diff_id for layer in image.layers]
    assert (found.id, found.config) == (image.id, image.config)
    assert verify_store(other, (), lambda line: None) == []


@needs("skopeo")
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_skopeo_reads_and_writes_oci_archives(
    store: Store, image: Image, tmp_path: Path, run: Run, compression: str
) -> None:
    path = written(store, tmp_path, "oci", compression)
    config = json.loads(run("skopeo", "inspect", "--config", f"oci-archive:{path}:{NAME}"))
    assert config["rootfs"]["diff_ids"] == [layer.diff_id for layer in image.layers]
    run("skopeo", "copy", f"oci-archive:{path}:{NAME}", f"oci-archive:{tmp_path}/back.tar:{NAME}")
    comes_back(tmp_path, tmp_path / "back.tar", image)


@needs("skopeo")
@pytest.mark.parametrize("transport", ["docker-archive", "oci", "dir"])
def test_skopeo_converts_ours_to_other_formats_and_back(
    store: Store, image: Image, tmp_path: Path, run: Run, transport: str
) -> None:
    path = written(store, tmp_path, "docker")
    target = f"{tmp_path}/copy" + ("" if transport == "dir" else f":{NAME}")
    run("skopeo", "copy", f"docker-archive:{path}", f"{transport}:{target}")
    if transport == "dir":  # no archive of ours, so it is converted once more
        run("skopeo", "copy", f"dir:{target}", f"oci-archive:{tmp_path}/again.tar:{NAME}")
        config = json.loads(run("skopeo", "inspect", "--config", f"oci-archive:{tmp_path}/again.tar:{NAME}"))
        assert config["rootfs"]["diff_ids"] == [layer.diff_id for layer in image.layers]
        return
    other = Store(tmp_path / "other")
    (found,) = load(other, tmp_path / "copy", lambda line: None)
    assert [layer.diff_id for layer in found.layers] == [layer.diff_id for layer in image.layers]
    assert verify_store(other, (), lambda line: None) == []


@needs("skopeo")
def test_skopeo_reads_the_store_itself_once_layers_are_blobs(store: Store, tmp_path: Path, run: Run) -> None:
    """The store is an image layout: what came from elsewhere is read where it lies."""
    from runtime.images.descriptors import LAYER_GZIP
    from tests.runtime.images.images import bring

    came = bring(store, "came:1", {"a": b"x"}, LAYER_GZIP)
    config = json.loads(run("skopeo", "inspect", "--config", f"oci:{store.root}:came:1"))
    assert config["rootfs"]["diff_ids"] == [came.layers[0].diff_id]
    run("skopeo", "copy", f"oci:{store.root}:came:1", f"oci-archive:{tmp_path}/copy.tar:came:1")
    (found,) = load(Store(tmp_path / "other"), tmp_path / "copy.tar", print)
    assert found.id == came.id


@needs("umoci")
def test_umoci_unpacks_the_same_files_and_what_it_adds_comes_back(
    store: Store, image: Image, tmp_path: Path, run: Run
) -> None:
    path = written(store, tmp_path, "oci")
    (tmp_path / "layout").mkdir()
    run("tar", "-xf", path, "-C", tmp_path / "layout")
    index = json.loads((tmp_path / "layout/index.json").read_text())
    for one in index["manifests"]:  # umoci takes no slash and no colon in a tag
        one["annotations"]["org.opencontainers.image.ref.name"] = "ours"
    (tmp_path / "layout/index.json").write_text(json.dumps(index))
    run("umoci", "unpack", "--image", f"{tmp_path}/layout:ours", tmp_path / "bundle")
    root = tmp_path / "bundle/rootfs"
    assert sorted(path.name for path in (root / "etc").iterdir()) == ["hard", "kept", "soft"]
    assert [path.name for path in (root / "folder").iterdir()] == ["seen"]
    kept = (root / "etc/kept").stat()
    assert (kept.st_mode & 0o7777, kept.st_uid, kept.st_gid, kept.st_nlink) == (0o4755, 1000, 100, 2)
    assert os.getxattr(root / "etc/kept", "security.capability") == CAPABILITY
    (root / "added").write_text("by umoci")
    (root / "folder/seen").unlink()
    run("umoci", "repack", "--image", f"{tmp_path}/layout:theirs", tmp_path / "bundle")
    other = Store(tmp_path / "other")
    ours, theirs = load(other, tmp_path / "layout", lambda line: None)
    assert (ours.id, theirs.layers[:2]) == (image.id, ours.layers)
    assert (theirs.layers[2].path / "added").read_text() == "by umoci"
    assert (theirs.layers[2].path / "folder/seen").is_char_device()
    assert verify_store(other, (), lambda line: None) == []


@needs("podman")
@pytest.mark.parametrize("format", FORMATS)
def test_podman_loads_ours_and_we_load_what_it_saves(
    store: Store, image: Image, tmp_path: Path, run: Run, format: Format
) -> None:
    run("podman", "load", "--input", written(store, tmp_path, format))
    listed = json.loads(run("podman", "image", "list", "--format", "json"))
    assert [one["Id"] for one in listed] == [image.id.removeprefix("sha256:")]
    for kind in ("oci-archive", "docker-archive"):
        run("podman", "save", "--format", kind, "--output", tmp_path / f"{kind}.tar", listed[0]["Names"][0])
        other = Store(tmp_path / kind)
        (found,) = load(other, tmp_path / f"{kind}.tar", lambda line: None)
        assert [layer.diff_id for layer in found.layers] == [layer.diff_id for layer in image.layers]
        assert found.config == image.config
        assert verify_store(other, (), lambda line: None) == []


@needs("buildah")
def test_buildah_builds_on_ours_and_we_load_what_it_built(store: Store, image: Image, tmp_path: Path, run: Run) -> None:
    container = run("buildah", "from", f"oci-archive:{written(store, tmp_path, 'oci')}:{NAME}").strip()
    (tmp_path / "added").write_text("by buildah")
    run("buildah", "copy", container, tmp_path / "added", "/folder/added")
    run("buildah", "commit", "--format", "docker", container, f"docker-archive:{tmp_path}/built.tar:built:1")
    (found,) = load(Store(tmp_path / "other"), tmp_path / "built.tar", lambda line: None)
    assert [layer.diff_id for layer in found.layers[:2]] == [layer.diff_id for layer in image.layers]
    assert (found.layers[2].path / "folder/added").read_text() == "by buildah"
