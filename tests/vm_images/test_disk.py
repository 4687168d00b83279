"""The disk: the same bits for the same layers, and in it what the layers hold."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from runtime.atomic import remove
from runtime.errors import PrerequisiteError
from runtime.images.layers import settle
from runtime.images.merging import mountable
from runtime.images.model import Image, ImageConfig, Layer
from runtime.images.store import Store
from vm_images.disk import build_disk, disk_path, ensure_disk, ensure_layer_disk, layer_name

pytestmark = pytest.mark.root


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    low, top = tmp_path / "low", tmp_path / "top"
    for layer in (low, top):
        layer.mkdir()
    for name in range(200):
        (low / f"file{name}").write_bytes(os.urandom(name * 50))
    (low / "secret").write_text("mine")
    (low / "secret").chmod(0o4700)
    os.chown(low / "secret", 1000, 70000)
    os.utime(low / "secret", ns=(1, 1_000_000_000_123_456_789))
    (top / "file7").write_text("top")
    return [low, top]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_two_builds_give_the_same_bits(layers: list[Path], tmp_path: Path) -> None:
    first, second = tmp_path / "one.erofs", tmp_path / "elsewhere" / "deeper" / "two.erofs"
    build_disk(layers, "sha256:1", first)
    for path in (*layers, *layers[0].iterdir()):  # read, and changed, since
        os.utime(path, ns=(10**18, path.stat().st_mtime_ns))
    os.link(layers[0] / "file9", tmp_path / "of another build")
    build_disk(layers, "sha256:1", second)
    assert sha256(first) == sha256(second)
    assert os.listdir(second.parent) == ["two.erofs"]


def test_other_layers_give_other_bits(layers: list[Path], tmp_path: Path) -> None:
    build_disk(layers, "sha256:1", tmp_path / "one.erofs")
    os.utime(layers[1] / "file7", (5, 5))
    build_disk(layers, "sha256:1", tmp_path / "two.erofs")
    assert sha256(tmp_path / "one.erofs") != sha256(tmp_path / "two.erofs")


def test_the_files_come_out_as_they_went_in(layers: list[Path], tmp_path: Path) -> None:
    build_disk(layers, "sha256:1", tmp_path / "disk.erofs")
    out = tmp_path / "out"
    subprocess.run(["fsck.erofs", f"--extract={out}", str(tmp_path / "disk.erofs")], check=True, capture_output=True)
    status, expected = (out / "secret").stat(), (layers[0] / "secret").stat()
    assert (status.st_mode, status.st_uid, status.st_gid) == (expected.st_mode, 1000, 70000)
    assert status.st_mtime_ns == expected.st_mtime_ns
    assert (out / "file7").read_text() == "top"
    assert (out / "file199").read_bytes() == (layers[0] / "file199").read_bytes()


def test_a_disk_is_built_once_an_image(layers: list[Path], tmp_path: Path) -> None:
    image = Image("a/b", "sha256:abc", ImageConfig(), tuple(Layer(f"sha256:{p.name}", p) for p in layers))
    path = ensure_disk(tmp_path / "disks", image)
    before = path.stat()
    assert ensure_disk(tmp_path / "disks", image) == path == disk_path(tmp_path / "disks", image)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_layers_lie_side_by_side_as_they_are(layers: list[Path], tmp_path: Path) -> None:
    low, top = layers
    os.mknod(top / "file8", 0o020000, os.makedev(0, 0))
    (top / "hidden").mkdir()
    os.setxattr(top / "hidden", "trusted.overlay.opaque", b"y")
    images = [
        Image("a", "sha256:a", ImageConfig(), (Layer("sha256:low", low), Layer("sha256:top", top))),
        Image("b", "sha256:b", ImageConfig(), (Layer("sha256:low", low),)),
    ]
    disk = ensure_layer_disk(tmp_path / "disks", images)
    before = disk.stat()
    again = ensure_layer_disk(tmp_path / "disks", images[::-1])
    assert (again, again.stat().st_mtime_ns) == (disk, before.st_mtime_ns), "the order of images is no matter"
    out = tmp_path / "out"
    subprocess.run(["fsck.erofs", f"--extract={out}", str(disk)], check=True, capture_output=True)
    assert sorted(os.listdir(out)) == ["low", "top"]
    assert (out / "low" / "file8").is_file() and (out / "top" / "file8").is_char_device()
    assert (out / "top" / "file8").stat().st_rdev == 0
    shown = subprocess.run(["dump.erofs", "--path=/top/hidden", str(disk)], check=True, capture_output=True, text=True)
    assert "Xattr size: 0" not in shown.stdout
    assert ensure_layer_disk(tmp_path / "disks", images[1:]) != disk


def test_what_is_merged_of_very_many_layers_lies_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.unionfs.depth.LAYERS_LIMIT", 4)
    store = Store(tmp_path / "store")
    layers = []
    with store.building(print):
        for number in range(6):
            with store.scratch() as scratch:
                (scratch / "root").mkdir()
                (scratch / "root" / str(number)).touch()
                layers.append(store.add_layer(scratch / "root", "test", settle(scratch / "root", 0)))
        image = store.tag("many", ImageConfig(), layers)
    disk = ensure_layer_disk(tmp_path / "disks", [image])
    subprocess.run(["fsck.erofs", f"--extract={tmp_path / 'out'}", str(disk)], check=True, capture_output=True)
    merged, *others = map(layer_name, mountable(image.layers))
    assert sorted(os.listdir(tmp_path / "out")) == sorted({merged, *map(layer_name, image.layers)}) and others
    assert sorted(os.listdir(tmp_path / "out" / merged)) == ["0", "1", "2", "3"]


def test_layers_of_another_file_system_are_refused(tmp_path: Path) -> None:
    shm = Path("/dev/shm")
    if shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("the temporary directory and /dev/shm are one file system")
    layer = shm / f"testbed-test-{os.getpid()}"
    layer.mkdir()
    try:
        (layer / "file").touch()
        with pytest.raises(PrerequisiteError, match=r"link .*file"):
            build_disk([layer], "sha256:1", tmp_path / "disk.erofs")
    finally:
        (layer / "file").unlink()
        layer.rmdir()
    assert os.listdir(tmp_path) == []


def test_a_name_that_the_tool_does_not_take_is_named_or_taken(layers: list[Path], tmp_path: Path) -> None:
    """erofs-utils 1.5 refuses what later ones take."""
    name = "n" * 255
    (layers[0] / name).touch()
    try:
        build_disk(layers, "sha256:1", tmp_path / "disk.erofs")
    except PrerequisiteError as error:
        assert f"no name of 255 bytes: shorten {name}" in error.hint


def test_a_deep_tree_goes_onto_a_disk(layers: list[Path], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    deep = layers[0]
    request.addfinalizer(lambda: remove(layers[0]))  # pytest's own removal does not get that deep
    for _ in range(15):
        deep = deep / "/".join("d" * 100)
        deep.mkdir(parents=True)
    build_disk(layers, "sha256:1", tmp_path / "disk.erofs")
    # By the kernel: fsck.erofs 1.5 does not survive such a tree.
    (tmp_path / "mnt").mkdir()
    script = 'mount -t erofs -o ro,loop "$0" "$1" && test -d "$1/$2"'
    arguments = [str(tmp_path / "disk.erofs"), str(tmp_path / "mnt"), str(deep.relative_to(layers[0]))]
    subprocess.run(["unshare", "--mount", "sh", "-c", script, *arguments], check=True)
