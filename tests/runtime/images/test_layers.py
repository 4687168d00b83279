"""The canonical tar: equal for equal content, different for different content, and true to the OCI format."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.atomic import remove
from runtime.errors import UsageError
from runtime.images.layers import await_tick, digest, encode_header, settle, write_tar
from runtime.images.oci import EPOCH_S
from runtime.unionfs.lookup import OPAQUE_XATTR

pytestmark = pytest.mark.root

# A file capability as setcap writes it: revision 2, CAP_NET_BIND_SERVICE, effective (linux/capability.h).
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


def make_tree(root: Path, *, backwards: bool = False) -> Path:
    names = ["a.txt", "b.txt", "sub/c.txt", "sub/d.txt"]
    for name in reversed(names) if backwards else names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    os.link(root / "a.txt", root / "hard")
    (root / "soft").symlink_to("sub")
    os.mknod(root / "deleted", stat.S_IFCHR, os.makedev(0, 0))
    os.mkfifo(root / "fifo")
    (root / "opaque").mkdir()
    os.setxattr(root / "opaque", OPAQUE_XATTR, b"y")
    os.setxattr(root / "b.txt", "security.capability", CAPABILITY)
    os.chown(root / "sub", 1000, 100)
    settle(root, 0)
    return root


def tar_of(tree: Path) -> io.BytesIO:
    stream = io.BytesIO()
    write_tar(tree, stream)
    stream.seek(0)
    return stream


def test_same_content_has_the_same_digest(tmp_path: Path) -> None:
    first = digest(make_tree(tmp_path / "one"))
    time.sleep(0.02)
    assert digest(make_tree(tmp_path / "two", backwards=True)) == first


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda root: (root / "a.txt").write_text("other"), id="content"),
        pytest.param(lambda root: (root / "a.txt").chmod(0o600), id="mode"),
        pytest.param(lambda root: os.chown(root / "a.txt", 7, 7), id="owner"),
        pytest.param(lambda root: os.utime(root / "a.txt", (5, 5)), id="time"),
        pytest.param(lambda root: (root / "a.txt").rename(root / "e.txt"), id="name"),
        pytest.param(lambda root: (root / "deleted").unlink(), id="whiteout"),
        pytest.param(lambda root: os.removexattr(root / "opaque", OPAQUE_XATTR), id="opaque"),
        pytest.param(lambda root: os.removexattr(root / "b.txt", "security.capability"), id="capability"),
        pytest.param(lambda root: ((root / "soft").unlink(), (root / "soft").symlink_to("a.txt")), id="link"),
    ],
)
def test_any_change_changes_the_digest(tmp_path: Path, change: Callable[[Path], object]) -> None:
    tree = make_tree(tmp_path / "tree")
    before = digest(tree).diff_id
    change(tree)
    assert digest(tree).diff_id != before


def test_whiteouts_take_their_oci_names(tmp_path: Path) -> None:
    with tarfile.open(fileobj=tar_of(make_tree(tmp_path / "tree"))) as archive:
        names = archive.getnames()
        assert archive.getmember(".wh.deleted").isreg()
    assert "deleted" not in names
    assert names.index("opaque/.wh..wh..opq") == names.index("opaque") + 1


def test_the_tar_has_numeric_owners_hard_links_and_attributes(tmp_path: Path) -> None:
    with tarfile.open(fileobj=tar_of(make_tree(tmp_path / "tree"))) as archive:
        members = {member.name: member for member in archive}
    assert (members["sub"].uid, members["sub"].gid, members["sub"].uname) == (1000, 100, "")
    assert (members["hard"].islnk(), members["hard"].linkname) == (True, "a.txt")
    capability = members["b.txt"].pax_headers["SCHILY.xattr.security.capability"]
    assert capability.encode("utf-8", "surrogateescape") == CAPABILITY
    assert not any("trusted.overlay" in key for member in members.values() for key in member.pax_headers)


def test_settling_keeps_times_from_outside_the_step_only(tmp_path: Path) -> None:
    (tmp_path / "root" / "sub").mkdir(parents=True)
    old, new, early, late = (tmp_path / "root" / name for name in ("old", "sub/new", "early", "late"))
    for path in (old, new, early, late):
        path.write_text("x")
    os.utime(old, ns=(10**18 + 5, 10**18 + 5))
    os.utime(early, ns=(-(10**9) // 2, -(10**9) // 2))
    os.utime(late, (4 * 10**9, 4 * 10**9))
    assert settle(tmp_path / "root", time.time() - 1) == 10**9 + 1
    assert old.stat().st_mtime_ns == 10**18
    assert new.stat().st_mtime == new.parent.stat().st_mtime == 10**9 + 1
    assert (early.stat().st_mtime, late.stat().st_mtime) == (0, 4 * 10**9)


@pytest.mark.parametrize(("after_s", "settled_s"), [(0, EPOCH_S + 1), (10**9, 10**9 + 1)])
def test_what_a_step_writes_is_newer_than_all_below_it(tmp_path: Path, after_s: int, settled_s: int) -> None:
    (tmp_path / "file").write_text("x")
    assert settle(tmp_path, time.time() - 1, after_s) == settled_s
    assert (tmp_path / "file").stat().st_mtime == settled_s


def test_what_is_written_after_a_tick_is_told_from_what_was_before(tmp_path: Path) -> None:
    """Also on kernels that give files finer times than ticks (since 6.13), ahead of the clock that has ticks."""
    for number in range(200):
        before, after = tmp_path / f"before{number}", tmp_path / f"after{number}"
        before.symlink_to("nowhere")
        tick_s = await_tick()
        after.mkdir()
        assert before.lstat().st_mtime < tick_s <= after.stat().st_mtime <= time.time()


def test_an_empty_layer_has_no_time_of_its_own(tmp_path: Path) -> None:
    assert settle(tmp_path, time.time() - 1, 10**9) == 10**9


@pytest.mark.parametrize("name", [".wh.x", "sub/.wh..wh..opq"])
def test_a_name_that_would_delete_another_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / name).write_text("")
    with pytest.raises(UsageError, match=f"/{name}: in a layer's tar"):
        settle(tmp_path, time.time() - 1)


def test_deep_trees_and_links_in_circles_are_settled_digested_and_removed(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    deep = tmp_path / "tree"
    request.addfinalizer(lambda: subprocess.run(["rm", "-rf", str(tmp_path / "tree")]))  # pytest would not get so deep
    for _ in range(15):
        deep = deep / "/".join("d" * 100)
        deep.mkdir(parents=True)
    (deep / "circle").symlink_to("circle")
    settle(tmp_path / "tree", 0)
    with tarfile.open(fileobj=tar_of(tmp_path / "tree")) as archive:
        assert archive.getnames()[-1] == "/".join("d" * 1500) + "/circle"
    remove(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_settling_removes_overlays_own_attributes(tmp_path: Path) -> None:
    tree = tmp_path / "root"
    (tree / "opaque").mkdir(parents=True)
    os.setxattr(tree / "opaque", OPAQUE_XATTR, b"y")
    for name in ("trusted.overlay.impure", "trusted.overlay.origin"):
        os.setxattr(tree / "opaque", name, b"y")
    os.setxattr(tree, "trusted.overlay.impure", b"y")
    settle(tree, 0)
    assert os.listxattr(tree / "opaque") == [OPAQUE_XATTR]
    assert os.listxattr(tree) == []


def test_a_socket_has_no_place_in_a_tar(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    before = digest(tree)
    os.mknod(tree / "socket", stat.S_IFSOCK | 0o600)
    assert digest(tree) == before


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])
@pytest.mark.parametrize("name", ["a", "d/e", "n" * 99, "n" * 100, "n" * 101, "x/" * 49 + "yz", "é", "\udcff"])
def test_a_header_is_the_one_that_tarfile_makes(kind: bytes, name: str) -> None:
    for number in (0, 5, 8**7 - 1, 8**7, 8**11 - 1, 8**11, -1):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.mtime = kind, 0o104755, number
        info.uid = info.gid = min(max(number, 0), 8**7)
        info.size = max(number, 0) if kind == tarfile.REGTYPE else 0
        assert encode_header(info) == info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"), number
