"""The store finds by content, keeps nothing half-written, and lets one builder in at a time."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError, UsageError
from runtime.home import store_root
from runtime.images.layers import settle
from runtime.images.model import History, Image, ImageConfig, Layer
from runtime.images.records import current_boot, record_path
from runtime.images.store import Store
from tests.waiting import until

pytestmark = pytest.mark.root


def add(store: Store, text: str) -> Layer:
    with store.building(print), store.scratch() as scratch:
        tree = scratch / "root"
        tree.mkdir()
        (tree / "file").write_text(text)
        settle(tree, 0)
        return store.add_layer(tree, "test")


def test_equal_layers_are_one(store: Store) -> None:
    one, two, other = add(store, "a"), add(store, "a"), add(store, "b")
    assert one == two != other
    assert len([path for path in (store.root / "layers").iterdir() if path.is_dir()]) == 2
    assert (one.path.name, (one.path / "file").read_text()) == (one.diff_id[7:33], "a")
    assert one.path.stat().st_mode & 0o777 == 0o755


def test_an_image_reads_back_as_it_was_written(store: Store) -> None:
    layers = (add(store, "a"), add(store, "b"))
    config = ImageConfig(("A=1",), ("x",), ("y",), "/w", "u", ("80/tcp",), (("k", "v"),))
    with store.building(print):
        written = store.tag("some/name", config, layers, (History("made", False), History("ENV", True)))
    assert store.get("some/name") == written
    document = json.loads(store.layout.path(written.id).read_text())
    assert document["rootfs"] == {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
    assert (document["os"], document["config"]["ExposedPorts"]) == ("linux", {"80/tcp": {}})


def test_the_same_image_has_the_same_id(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    ids = []
    for each in (store, other):
        layer = add(each, "a")
        with each.building(print):
            ids.append(each.tag("x", ImageConfig(), (layer,)).id)
    assert ids[0] == ids[1]


def test_an_unknown_reference_lists_the_known(store: Store, tiny: Image) -> None:
    with pytest.raises(UsageError, match="no image 'nope'") as caught:
        store.get("nope")
    assert caught.value.hint == "known images: tiny"
    assert Store(store.root.parent / "empty").find("nope") is None


def test_an_image_without_all_its_layers_is_not_there(store: Store, tiny: Image) -> None:
    tiny.layers[0].path.rename(store.root / "tmp" / "away")
    assert store.find("tiny") is None


def test_verify_names_a_layer_that_was_changed(store: Store, tiny: Image) -> None:
    assert store.verify(tiny) == ()
    (tiny.layers[0].path / "etc/passwd").write_text("root::0:0::/:\n")
    assert store.verify(tiny) == tiny.layers


def test_the_cache_forgets_layers_that_are_gone(store: Store) -> None:
    layer = add(store, "a")
    with store.building(print):
        store.remember("key", layer)
    assert store.cached("key") == layer
    assert store.cached("other") is None
    layer.path.with_name(layer.path.name + ".json").unlink()
    assert store.cached("key") is None


def test_what_a_killed_builder_left_is_removed_by_the_next(store: Store) -> None:
    script = (
        "import os, sys; from pathlib import Path; from runtime.images.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "with store.building(print), store.scratch() as scratch:\n"
        "    (scratch / 'half').write_text('x'); os.kill(os.getpid(), 9)\n"
    )
    repository = Path(__file__).parents[3]
    killed = subprocess.run([sys.executable, "-c", script, str(store.root)], cwd=repository, check=False)
    assert killed.returncode == -9
    assert len(store.leftovers()) == 1
    with store.building(print):
        assert store.leftovers() == ()


def test_a_layer_that_a_killed_builder_did_not_finish_is_made_again(store: Store) -> None:
    layer = add(store, "a")
    metadata = layer.path.with_name(layer.path.name + ".json")
    metadata.unlink()
    (layer.path / "file").write_text("half")
    assert add(store, "a") == layer
    assert metadata.is_file()
    assert (layer.path / "file").read_text() == "a"


def test_builders_wait_for_each_other(store: Store) -> None:
    said: list[str] = []
    order: list[str] = []

    def second() -> None:
        with store.building(said.append):
            order.append("second")

    with store.building(print):
        thread = threading.Thread(target=second)
        thread.start()
        until(lambda: said, 5)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    assert said == [f"waiting for another build in {store.root}"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"diff_id": 1, "rootfs": {}}', b"\xff\xfe{", b'{"tiny": 5}']
)
@pytest.mark.parametrize("where", ["index.json", "manifest", "configuration", "layers/*.json"])
def test_a_damaged_file_is_named(store: Store, tiny: Image, where: str, content: bytes) -> None:
    manifest = store.layout.path(store.manifest("tiny").digest)
    named = {"manifest": manifest, "configuration": store.layout.path(tiny.id)}
    path = named.get(where) or next(store.root.glob(where))
    path.write_bytes(content)
    if content == b"" and where.startswith("layers"):  # as a file that was not yet on the disk when the power went
        assert store.find("tiny") is None
        return
    with pytest.raises(PrerequisiteError, match=f"read {path}"):
        store.get("tiny")


def test_a_layer_of_another_boot_that_may_not_be_on_the_disk_is_made_again(store: Store) -> None:
    with store.building(print), store.scratch() as scratch:
        (scratch / "tree").mkdir()
        layer = store.add_layer(scratch / "tree", "test")
        record = record_path(layer.path)
        written = record.read_bytes()
        assert b"boot" in written
    assert b"boot" not in record.read_bytes()
    record.write_bytes(written.replace(current_boot().encode(), b"0d1ee7d2-7a9c-4d3b-8f5e-000000000000"))
    assert store.layer(layer.diff_id) is None
    assert add(store, "a").diff_id != layer.diff_id


def test_a_home_that_is_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("TESTBED_HOME", str(path))
        with pytest.raises(PrerequisiteError, match=f"TESTBED_HOME: {path}"):
            store_root()
    with pytest.raises(PrerequisiteError, match="not a directory"), Store(tmp_path / "file").building(print):
        pass


_BUILDING = """
import sys
from pathlib import Path
from runtime.errors import PrerequisiteError
from runtime.images.store import Store
try:
    with Store(Path(sys.argv[1]) / "images").building(print): pass
except PrerequisiteError as error: print(error.message)
"""


def test_a_home_that_is_read_only_is_named(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o ro none "$1" && exec "$2" -c "$3" "$1"'
    arguments = ["sh", str(tmp_path), sys.executable, _BUILDING]
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, *arguments], capture_output=True, text=True)
    assert done.stdout == f"write to the image store: Read-only file system at {tmp_path}/images\n", done.stderr


def test_nobody_else_enters_the_store_and_an_open_one_is_closed(store: Store, tiny: Image) -> None:
    """Its layers have set-user-ID programs, which would be those of every user of the host."""
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
    store.root.chmod(0o755)
    store.get("tiny")
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
    program = tiny.layers[0].path / "usr/bin/busybox"
    command = ["sh", "-c", '"$0" true', str(program)]
    done = subprocess.run(command, user=64_000, group=64_000, extra_groups=[], capture_output=True, check=False)
    assert b"Permission denied" in done.stderr


def test_an_index_names_the_same_images_with_their_layers_elsewhere(store: Store, tmp_path: Path) -> None:
    one, two = add(store, "one"), add(store, "two")
    with store.building(print):
        image = store.tag("app/web", ImageConfig(cmd=("run",)), (one, two))
        store.tag("app/other", ImageConfig(), (two,))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for layer in (one, two):
        (elsewhere / layer.path.name).symlink_to(layer.path)
    store.copy_index((image,), tmp_path / "copy", str(elsewhere))
    copy = Store(tmp_path / "copy")
    found = copy.get("app/web")
    assert (found.id, found.config, copy.references()) == (image.id, image.config, ("app/web",))
    assert [(layer.path / "file").read_text() for layer in found.layers] == ["one", "two"]
