"""Roots on disk and mounted: what a snapshot, a clone, a rollback and a commit have in them, and what a kill leaves."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup
from runtime.errors import PrerequisiteError, TestbedError, UsageError
from runtime.images.collection import collect
from runtime.images.layers import settle
from runtime.images.model import Image, ImageConfig
from runtime.images.store import Store
from runtime.images.verification import verify_store
from runtime.roots import running
from runtime.roots.pausing import cgroup_of, lease_of
from runtime.roots.store import RootStore
from runtime.unionfs import depth, detached, drivers, unions
from runtime.unionfs.records import Records
from runtime.unionfs.usage import is_in_use
from testbed import leftovers
from tests.waiting import until

pytestmark = pytest.mark.root


def make_image(images: Store, tree: Path) -> Image:
    """An image of one layer, a copy of ``tree``."""
    with images.building(lambda _: None), images.scratch() as scratch:
        subprocess.run(["cp", "-a", str(tree), str(scratch / "tree")], check=True)
        layer = images.add_layer(scratch / "tree", "test", settle(scratch / "tree", time.time() + 9))
        return images.tag("test/base", ImageConfig(cmd=("/bin/cat", "/greeting")), [layer])


@pytest.fixture
def store(tmp_path: Path, busybox_layer: Path) -> RootStore:
    for name in ("greeting", "removed"):
        (busybox_layer / name).write_text(f"{name} of the image\n")
    (busybox_layer / "etc").mkdir()
    images = Store(tmp_path / "home" / "images")
    store = RootStore(tmp_path / "home", images)
    store.create("web", make_image(images, busybox_layer))
    return store


@contextmanager
def mounted(store: RootStore, name: str) -> Iterator[Path]:
    """A root, mounted where nobody else sees it."""
    union = store.union(store.read().get(name))
    layer = store.writable(store.read().get(name))
    mount = detached.overlay_by_options(detached.Stack(tuple(one.path for one in union.readonly), layer, "test"))
    try:
        yield Path(f"/proc/self/fd/{mount}")
    finally:
        os.close(mount)


def write(store: RootStore, name: str, file: str, text: str) -> None:
    with mounted(store, name) as root:
        (root / file).write_text(text)


def read(store: RootStore, name: str, file: str) -> str:
    with mounted(store, name) as root:
        return (root / file).read_text()


def shown(store: RootStore, name: str, against: str = "") -> list[str]:
    """Differences as lines."""
    return [f"{one.kind[0].upper()} {one.path}" for one in store.differences(name, against)]


def test_snapshots_clones_and_rollbacks_have_what_was_there(store: RootStore) -> None:
    write(store, "web", "file", "one")
    store.snapshot("web", "one")
    write(store, "web", "file", "two")
    store.clone("web@one", "old")
    store.clone("web", "new")  # as it is now
    write(store, "old", "file", "the clone's own")
    assert [read(store, name, "file") for name in ("web", "old", "new")] == ["two", "the clone's own", "two"]
    store.rollback("web", "one")
    assert read(store, "web", "file") == "one" and read(store, "new", "file") == "two"
    store.rollback("web", "new")  # what the clone made a snapshot of
    assert read(store, "web", "file") == "two"
    store.promote("old")
    store.remove("new")
    store.remove("web")
    assert read(store, "old", "file") == "the clone's own"


def test_the_root_directory_itself_is_kept(store: RootStore) -> None:
    with mounted(store, "web") as root:
        os.chmod(root, 0o711)  # noqa: PTH101, S103
    store.snapshot("web", "one")
    with mounted(store, "web") as root:
        assert stat.S_IMODE(root.stat().st_mode) == 0o711
    store.clone("web@one", "copy")
    with mounted(store, "copy") as root:
        assert stat.S_IMODE(root.stat().st_mode) == 0o711


def test_nothing_is_copied_and_a_kill_leaves_nothing(store: RootStore, tmp_path: Path) -> None:
    write(store, "web", "large", "x" * (1 << 20))
    layers = tmp_path / "home" / "roots" / "layers"
    pid = os.fork()
    if pid == 0:
        try:
            store._write = lambda roots: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
            store.clone("web", "copy")
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert len(list(layers.iterdir())) == 3  # what takes the writes, and what would have
    store.clone("web", "copy")
    assert {one.name for one in layers.iterdir()} == store.read().layer_names()
    assert len(list(layers.rglob("large"))) == 1


def test_a_root_in_use_is_let_alone(store: RootStore) -> None:
    store.snapshot("web", "one")
    with mounted(store, "web") as root:
        (root / "file").touch()
        for act in (
            lambda: store.snapshot("web", "two"),
            lambda: store.rollback("web", "one"),
            lambda: store.remove("web"),
            lambda: store.commit("web", "test/new", print),
            lambda: running.run(store, "web", ("/bin/true",)),
        ):
            with pytest.raises(UsageError, match="something writes to it"):
                act()
        store.clone("web@one", "meanwhile")
    store.snapshot("web", "two")


def test_a_container_changes_its_root_and_nothing_else_shows(store: RootStore, tmp_path: Path) -> None:
    def run(*command: str) -> tuple[int, str]:
        with (tmp_path / "output").open("w+b") as output:
            status = running.run(store, "web", command, stdout=output.fileno())
            return status, (tmp_path / "output").read_text()

    assert run() == (0, "greeting of the image\n")
    assert run("/bin/sh", "-c", "echo written > /etc/made; echo bye > /greeting; exit 3")[0] == 3
    assert run() == (0, "bye\n")
    assert shown(store, "web") == ["A /etc/made", "C /greeting"]


@contextmanager
def running_on(store: RootStore, name: str, script: str) -> Iterator[None]:
    """A container on a root, in a process of its own, from when it has written the file ``begun`` on."""
    pid = os.fork()
    if pid == 0:
        try:
            running.run(store, name, ("/bin/sh", "-c", f"echo > /begun; {script}"), stdout=2)
        finally:
            os._exit(0)
    try:
        until(lambda: Path(store.upper(store.read().get(name)), "begun").exists())
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        leftovers.remove_run(lease_of(store.read().get(name)))


def test_a_snapshot_of_a_running_container_is_one_moment_of_it(store: RootStore) -> None:
    # Two files with the same number, one after the other: a copy of one moment has them at most one apart.
    count = "n=0; while :; do n=$((n+1)); echo $n > /one; echo $n > /two; done"
    with running_on(store, "web", count):
        for number in range(3):
            store.snapshot("web", f"s{number}")
            with pytest.raises(UsageError, match="something writes to it"):
                store.rollback("web", "s0")
        before = Path(store.upper(store.read().get("web")), "one").read_text()
        until(lambda: Path(store.upper(store.read().get("web")), "one").read_text() not in ("", before))  # it goes on
    assert shown(store, "web@s0") == ["A /begun", "A /one", "A /two"]
    for number in range(3):
        store.clone(f"web@s{number}", f"c{number}")
        one, two = (read(store, f"c{number}", name) for name in ("one", "two"))
        assert 0 <= int(one or two) - int(two or one) <= 1


def test_a_container_that_a_killed_snapshot_left_frozen_goes_on(store: RootStore) -> None:
    with running_on(store, "web", "while :; do echo x >> /log; done"):
        cgroup = Cgroup(cgroup_of(store.read().get("web")))
        cgroup.freeze()
        store.create("other", store.images.get("test/base"))
        assert not cgroup.frozen()


def test_differences_are_those_of_two_states(store: RootStore) -> None:
    with mounted(store, "web") as root:
        (root / "dir").mkdir()
        (root / "dir" / "new").touch()
        (root / "removed").unlink()
    store.snapshot("web", "one")
    with mounted(store, "web") as root:
        (root / "removed").write_text("again")
        (root / "dir" / "new").unlink()
        (root / "bin" / "busybox").chmod(0o700)
        (root / "etc").rmdir()
        (root / "etc").symlink_to("/")
    assert shown(store, "web@one") == ["A /dir", "A /dir/new", "R /removed"]
    expected = ["C /bin/busybox", "R /dir/new", "C /etc", "A /removed"]
    assert shown(store, "web", "web@one") == expected
    store.clone("web", "flat")
    store.flatten("flat")
    assert store.differences("flat", "web") == ()
    assert len(store.layers(store.read().get("flat"))) == 1
    assert store.differences("flat") == store.differences("web")


def test_a_hidden_directory_is_compared_as_a_whole(store: RootStore) -> None:
    with mounted(store, "web") as root:
        shutil.rmtree(root / "bin")
        (root / "bin").mkdir()
        (root / "bin" / "only").touch()
    kinds = shown(store, "web")
    assert "A /bin/only" in kinds and "R /bin/busybox" in kinds and "R /bin/sh" in kinds


def test_a_commit_is_an_image_of_the_same_files(store: RootStore) -> None:
    write(store, "web", "one", "1")
    store.snapshot("web", "one")
    with mounted(store, "web") as root:
        (root / "two").write_text("2")
        (root / "removed").unlink()
        os.utime(root / "two", (1000, 1000))
    image = store.commit("web", "test/committed", print)
    assert len(image.layers) == 3 and image.config.cmd == ("/bin/cat", "/greeting")
    assert store.images.verify(image) == ()
    store.create("again", image)
    assert [one for one in store.differences("again", "web") if one.kind != "changed"] == []
    with mounted(store, "again") as root:
        assert (root / "two").stat().st_mtime == 1000 and not (root / "removed").exists()
    assert store.commit("web", "test/twice", print).id == image.id
    assert len(store.commit("web@one", "test/older", print).layers) == 2


def test_a_root_is_mounted_as_a_union(store: RootStore, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    records = Records(tmp_path / "state")
    result = unions.mount(str(store.union(store.read().get("web"))), str(tmp_path / "m"), records=records)
    try:
        assert result.driver in drivers.candidates(store.union(store.read().get("web")))
        (tmp_path / "m" / "file").touch()
        with pytest.raises(UsageError, match="something writes to it"):
            store.snapshot("web", "one")
    finally:
        unions.unmount(str(tmp_path / "m"), records=records)
    assert shown(store, "web") == ["A /file"]


def test_a_root_keeps_its_image_when_the_reference_names_another(store: RootStore, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    before = store.image(store.read().get("web"))
    make_image(store.images, tmp_path / "other")
    after = store.image(store.read().get("web"))
    assert (after.id, after.layers, after.config) == (before.id, before.layers, before.config)
    assert store.differences("web") == () and store.read().needed_diff_ids() == {
        layer.diff_id for layer in before.layers
    }


def test_a_root_that_a_fuse_program_writes_to_is_let_alone(store: RootStore, tmp_path: Path) -> None:
    if not drivers.probe("fuse-overlayfs").works:
        pytest.skip("no fuse-overlayfs here")
    (tmp_path / "m").mkdir()
    upper = store.upper(store.read().get("web"))
    records = Records(tmp_path / "state")
    words = str(store.union(store.read().get("web")))
    unions.mount(words, str(tmp_path / "m"), "fuse-overlayfs", records)
    try:
        assert is_in_use(upper, records)
    finally:
        subprocess.run(["umount", str(tmp_path / "m")], check=True)
    assert not is_in_use(upper, records)


def make_deep(directory: Path) -> None:
    """Directories whose path is longer than any system call takes."""
    here = os.open(directory, os.O_RDONLY)
    for _ in range(40):
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_what_a_workload_wrote_leads_nowhere_else(store: RootStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("of the host")
    upper = Path(store.upper(store.read().get("web")))
    (upper / "etc").symlink_to(outside)
    (upper / "bin").symlink_to(outside)
    (upper / "file").symlink_to(outside / "secret")
    os.mkfifo(upper / "fifo")
    (upper / "line\nbreak").touch()
    status = (outside / "secret").stat(), outside.stat()
    kinds = shown(store, "web")
    assert "C /etc" in kinds and "A /file" in kinds and not [one for one in kinds if "secret" in one]
    store.commit("web", "test/hostile", print)
    store.clone("web", "flat")
    store.flatten("flat")
    flat = Path(store.layers(store.read().get("flat"))[-1])
    assert (
        (flat / "etc").is_symlink() and (flat / "file").is_symlink() and stat.S_ISFIFO((flat / "fifo").lstat().st_mode)
    )
    assert ((outside / "secret").stat(), outside.stat()) == status and os.listdir(outside) == ["secret"]


def test_what_cannot_be_copied_is_told_and_leaves_nothing(store: RootStore, tmp_path: Path) -> None:
    store.snapshot("web", "clean")
    upper = Path(store.upper(store.read().get("web")))
    make_deep(upper)
    for act in (lambda: store.commit("web", "test/deep", print), lambda: store.differences("web")):
        with pytest.raises(TestbedError, match="File name too long"):
            act()
    with pytest.raises(UsageError, match="snapshots"):
        store.flatten("web")
    store.clone("web", "deep")
    with pytest.raises(TestbedError, match="File name too long"):
        store.flatten("deep")
    store.remove("deep")
    store.remove("web@deep")
    store.rollback("web", "clean")  # which removes it, however deep
    (Path(store.upper(store.read().get("web"))) / ".wh.name").touch()
    with pytest.raises(UsageError, match="give it another name"):
        store.commit("web", "test/whiteout", print)
    assert store.images.leftovers() == () and store.images.references() == ("test/base",)
    assert store.read().layer_names() == {one.name for one in (tmp_path / "home" / "roots" / "layers").iterdir()}


def test_a_collection_keeps_what_a_root_stands_on(store: RootStore, tmp_path: Path) -> None:
    with store.images.building(lambda _: None):
        store.images.untag("test/base")
    keep = store.read().needed_diff_ids()
    collect(store.images, print, keep=keep, runs=tmp_path / "runs")
    assert read(store, "web", "greeting") == "greeting of the image\n" and shown(store, "web") == []
    collect(store.images, print, runs=tmp_path / "runs")
    with pytest.raises(PrerequisiteError, match="are gone from the store"):
        store.differences("web")


def test_a_chain_of_more_layers_than_an_overlay_has_is_run_on_mounted_and_collected(
    store: RootStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depth, "LAYERS_LIMIT", 8)
    for number in range(15):
        upper = Path(store.upper(store.read().get("web")))
        (upper / f"made-{number}").write_text(f"{number}\n")
        if number in (5, 14):  # below what is not merged, and in it
            os.mknod(upper / ("made-3" if number == 5 else "made-4"), stat.S_IFCHR, os.makedev(0, 0))
        store.snapshot("web", str(number))
    root = store.read().get("web")
    assert len(store.layers(root)) <= 8 < len(root.chain)
    assert running.run(store, "web", ("/bin/sh", "-c", "test ! -e /made-4 && cat /made-* > /all; rm /made-9")) == 0
    with mounted(store, "web") as shown_root:
        names = {name for name in os.listdir(shown_root) if name.startswith("made-")}
    assert names == {f"made-{number}" for number in range(15) if number not in (3, 4, 9)}
    assert {int(line) for line in read(store, "web", "all").split()} == {*range(15)} - {3, 4}
    keep, merged = store.read().needed_diff_ids(), store.merged()
    assert collect(store.images, print, keep=keep, keep_merged=merged, runs=tmp_path / "runs").merged == 0
    assert verify_store(store.images, (), print) == []
    assert collect(store.images, print, keep=keep, runs=tmp_path / "runs").merged == 1


def test_damage_and_what_is_gone_is_told(store: RootStore, tmp_path: Path) -> None:
    layer = store.images.get("test/base").layers[0]
    layer.path.with_name(f"{layer.path.name}.json").unlink()
    with pytest.raises(PrerequisiteError, match="layers of its image test/base are gone"):
        store.differences("web")
    (tmp_path / "home" / "roots" / "roots.json").write_text("{")
    with pytest.raises(PrerequisiteError, match=r"roots\.json"):
        store.read()
