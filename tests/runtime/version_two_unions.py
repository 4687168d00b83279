"""What is checked of unions and roots on a host with cgroup v2 alone, and with the distribution's kernel, which knows
less of the mount API than newer ones; see ``version_two_checks``."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.cgroups import Cgroup
from runtime.errors import UsageError
from runtime.images.model import ImageConfig
from runtime.images.store import Store
from runtime.roots import running
from runtime.roots.pausing import cgroup_of
from runtime.roots.store import RootStore
from runtime.unionfs import branches, drivers, mount_api, unions
from runtime.unionfs.records import Records
from runtime.unionfs.usage import is_in_use
from tests.runtime.version_two_containers import BUSYBOX
from tests.waiting import until

KERNEL = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))


@contextmanager
def in_memory() -> Iterator[Path]:
    """A tmpfs: the guest's own root is an overlay, which no overlay writes to."""
    place = Path("/tmp/unions")
    place.mkdir()
    mount_api.mount("tmpfs", str(place), "tmpfs")
    try:
        yield place
    finally:
        mount_api.unmount(str(place), lazy=True)
        place.rmdir()


def unions_change_while_files_are_open() -> None:
    with in_memory() as root:
        for name in ("a", "b", "c", "m"):
            (root / name).mkdir()
        (root / "b" / "file").write_text("of b")
        (root / "c" / "file").write_text("of c")
        records, target = Records(root / "state"), str(root / "m")
        made = unions.mount(f"br:{root}/a=rw:{root}/b=ro", target, records=records)
        way = "layers by descriptor" if KERNEL >= (6, 13) else "layers by mount options"
        assert made.driver == "overlay" and way in made.detail, made
        with (root / "m" / "file").open() as reader, (root / "m" / "log").open("w") as writer:
            try:
                unions.change(target, lambda union: branches.modify(union, f"{root}/a=ro"), records)
            except UsageError as error:
                assert "files are open for that" in error.message, error
            else:
                raise AssertionError("a branch became read-only under a writer")
            changed = unions.change(target, lambda union: branches.add(union, f"1:{root}/c=ro"), records)
            assert changed.attached == ("beneath" if KERNEL >= (6, 5) else "above"), changed
            assert reader.read() == "of b" and (root / "m" / "file").read_text() == "of c"
            writer.write("both show it")
            writer.flush()
            assert (root / "m" / "log").read_text() == "both show it"
        assert unions.which(f"{target}/file", records).branch == f"{root}/c=ro"
        unions.change(target, lambda union: branches.modify(union, f"{root}/a=ro"), records)
        try:
            (root / "m" / "more").touch()
        except OSError as error:
            assert error.errno == 30, error
        else:
            raise AssertionError("a read-only union was written to")
        unions.unmount(target, records=records)
        assert not [one for one in mount_api.mounts() if one.target == target]
        assert sorted(os.listdir(root)) == ["a", "b", "c", "m", "state"]
        assert drivers.can_mount_beneath() == (KERNEL >= (6, 5))


def roots_have_snapshots_and_clones() -> None:
    with in_memory() as home:
        images = Store(home / "images")
        with images.building(lambda _: None), images.scratch() as scratch:
            subprocess.run(["cp", "-a", BUSYBOX, str(scratch / "tree")], check=True)
            image = images.tag("test/base", ImageConfig(), [images.add_layer(scratch / "tree", "test")])
        store = RootStore(home, images)
        store.create("web", image)
        assert running.run(store, "web", ("/bin/sh", "-c", "echo one > /file")) == 0
        upper = store.upper(store.read().get("web"))
        assert not is_in_use(upper)
        pid = os.fork()
        if pid == 0:
            try:
                script = "echo > /begun; while :; do echo x >> /file; sleep 0.01; done"
                running.run(store, "web", ("/bin/sh", "-c", script))
            finally:
                os._exit(0)
        until(lambda: Path(upper, "begun").exists())
        assert is_in_use(upper)
        cgroup = Cgroup(cgroup_of(store.read().get("web")))
        store.snapshot("web", "live")
        assert not cgroup.frozen()
        size = Path(upper, "file").stat().st_size
        until(lambda: Path(upper, "file").stat().st_size > size)
        cgroup.kill()
        os.waitpid(pid, 0)
        store.clone("web@live", "copy")
        assert [one.path for one in store.differences("copy")] == ["/begun", "/file"]
        store.rollback("web", "live")
        assert store.differences("web", "copy") == ()


CHECKS = (unions_change_while_files_are_open, roots_have_snapshots_and_clones)
