"""Layers as the OCI image-spec has them, from whatever wrote them; and archives that mean harm."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.errors import TestbedError, UsageError
from runtime.images.layers import digest, write_tar
from runtime.images.oci import EPOCH_S
from runtime.images.unpack import Limits, unpack
from runtime.unionfs.lookup import OPAQUE_XATTR, is_opaque, is_whiteout
from tests.runtime.images.test_layers import CAPABILITY, make_tree

pytestmark = pytest.mark.root

Entry = tuple[str, dict[str, object]]


def archive_of(*entries: Entry, format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of entries: a name, and what is other than a regular file without content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, about in entries:
            info = tarfile.TarInfo(name)
            content = b""
            for key, value in about.items():
                if key == "content":
                    content = value  # type: ignore[assignment]
                    info.size = len(content)
                else:
                    setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def file(name: str, content: bytes = b"x", **about: object) -> Entry:
    return name, {"content": content, **about}


def folder(name: str, **about: object) -> Entry:
    return name, {"type": tarfile.DIRTYPE, "mode": 0o755, **about}


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Entry:
    return name, {"type": kind, "linkname": target}


def unpacked(tmp_path: Path, content: bytes, limits: Limits = Limits(), size: int = 1000) -> Path:  # noqa: B008
    tree = tmp_path / "tree"
    tree.mkdir()
    chunks = (content[at : at + size] for at in range(0, len(content), size))
    unpack(chunks, tree, "layer", limits)
    return tree


def names(tree: Path) -> list[str]:
    return sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))


# What a layer says


@pytest.mark.parametrize("size", [1, 511, 512, 513, 1 << 20])
def test_our_own_layers_come_back_the_same_in_pieces_of_any_size(tmp_path: Path, size: int) -> None:
    tree = make_tree(tmp_path / "made")
    buffer = io.BytesIO()
    write_tar(tree, buffer)
    assert digest(unpacked(tmp_path, buffer.getvalue(), size=size)) == digest(tree)


def test_a_whiteout_and_an_opaque_directory_take_overlays_form(tmp_path: Path) -> None:
    tree = unpacked(tmp_path, archive_of(folder("d"), file("d/.wh..wh..opq"), file("d/a"), file(".wh.gone")))
    assert is_opaque(tree / "d")
    assert is_whiteout((tree / "gone").lstat())
    assert names(tree) == ["d", "d/a", "gone"]


@pytest.mark.parametrize("first", ["whiteout", "entry"])
@pytest.mark.parametrize("kind", ["file", "folder", "implied"])
def test_a_whiteout_never_hides_what_its_own_layer_has(tmp_path: Path, first: str, kind: str) -> None:
    """Of layer.md: whiteouts only apply to resources in lower layers."""
    entry = {"file": file("a"), "folder": folder("a"), "implied": file("a/b")}[kind]
    entries = [file(".wh.a"), entry]
    tree = unpacked(tmp_path, archive_of(*(entries if first == "whiteout" else entries[::-1])))
    if kind == "file":
        assert (tree / "a").read_bytes() == b"x"
    else:
        assert (tree / "a").is_dir() and is_opaque(tree / "a")


@pytest.mark.parametrize("first", [True, False])
def test_a_root_that_hides_all_below_is_told(tmp_path: Path, first: bool) -> None:
    entries = [file(".wh..wh..opq"), file("a")]
    (tmp_path / "tree").mkdir()
    done = unpack((archive_of(*(entries if first else entries[::-1])),), tmp_path / "tree", "layer")
    assert done.hides_below
    assert names(tmp_path / "tree") == ["a"]


def test_what_the_root_and_implied_directories_look_like(tmp_path: Path) -> None:
    tree = unpacked(tmp_path, archive_of(file("a/b/c", mtime=10**9)))
    for path in (tree, tree / "a", tree / "a/b"):
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime) == (0o755, 0, EPOCH_S)
    (tmp_path / "other").mkdir()
    tree = unpacked(tmp_path / "other", archive_of(folder("./", mode=0o700, uid=5, mtime=7), file("./a")))
    assert (stat.S_IMODE(tree.stat().st_mode), tree.stat().st_uid, tree.stat().st_mtime) == (0o700, 5, 7)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1.5", 1_500_000_000),
        ("1700000000.123456789", 1_700_000_000_123_456_789),
        ("1700000000.1234567891", 1_700_000_000_123_456_789),
        ("-1", -(10**9)),
        ("-1.5", -1_500_000_000),
        ("-0.25", -250_000_000),
        ("4000000000", 4 * 10**18),
    ],
)
def test_times_are_exact_and_may_lie_before_1970(tmp_path: Path, text: str, ns: int) -> None:
    content = archive_of(
        folder("d", pax_headers={"mtime": text}), file("d/f", pax_headers={"mtime": text}),
        ("d/l", {"type": tarfile.SYMTYPE, "linkname": "x", "pax_headers": {"mtime": text}}),
    )  # fmt: skip
    tree = unpacked(tmp_path, content)
    assert [(tree / name).lstat().st_mtime_ns for name in ("d", "d/f", "d/l")] == [ns] * 3
    buffer = io.BytesIO()
    write_tar(tree, buffer)
    (tmp_path / "again").mkdir()
    assert digest(unpacked(tmp_path / "again", buffer.getvalue())) == digest(tree)
    assert (tmp_path / "again/tree/d/f").stat().st_mtime_ns == ns


def test_owners_modes_devices_links_and_attributes(tmp_path: Path) -> None:
    attributes = {
        "SCHILY.xattr.security.capability": CAPABILITY.decode("latin-1"),
        "SCHILY.xattr.user.note": "hello",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.user.overlay.opaque": "y",
    }
    tree = unpacked(
        tmp_path,
        archive_of(
            file("bin", mode=0o6755, uid=1000, gid=4_000_000_000, pax_headers=attributes),
            link("hard", "bin", tarfile.LNKTYPE),
            link("hard", "./bin", tarfile.LNKTYPE),
            link("soft", "/nowhere"),
            ("null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3, "mode": 0o666}),
            ("disk", {"type": tarfile.BLKTYPE, "devmajor": 8, "devminor": 0}),
            ("pipe", {"type": tarfile.FIFOTYPE, "mode": 0o622}),
        ),
    )
    status = (tree / "bin").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_nlink) == (0o6755, 1000, 4 * 10**9, 2)
    assert sorted(os.listxattr(tree / "bin")) == ["security.capability", "user.note"]
    assert os.readlink(tree / "soft") == "/nowhere"
    assert (tree / "null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISBLK((tree / "disk").stat().st_mode) and stat.S_ISFIFO((tree / "pipe").stat().st_mode)
    assert stat.S_IMODE((tree / "pipe").stat().st_mode) == 0o622


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_4096_bytes_and_of_bytes_that_are_no_utf8(tmp_path: Path, format: int) -> None:
    deep = "/".join(["d" * 254] * 16)[:4094]
    odd = b"\xff\xfe\x80".decode("utf-8", "surrogateescape")
    content = archive_of(file(deep), file(odd), link("l", "t" * 4095), file("x" * 255), format=format)
    tree = unpacked(tmp_path, content)
    assert os.fsencode(odd) in os.listdir(os.fsencode(tree))
    assert len(os.readlink(tree / "l")) == 4095
    buffer = io.BytesIO()
    write_tar(tree, buffer)
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as archive:
        assert {deep, odd, "l", "x" * 255} <= {member.name for member in archive}
    subprocess.run(["rm", "-rf", str(tree)], check=True)


@pytest.mark.parametrize("format", ["gnu", "0.0", "0.1", "1.0"])
def test_sparse_files_of_all_formats_stay_sparse(tmp_path: Path, format: str) -> None:
    made = tmp_path / "made"
    made.mkdir()
    with (made / "sparse").open("wb") as out:
        for number in range(40):  # more than the four segments that fit in a header
            out.seek(number * 200_000)
            out.write(b"%05d" % number)
        out.truncate(50_000_000)
    options = ["--format=gnu"] if format == "gnu" else ["--format=pax", f"--sparse-version={format}"]
    command = ["tar", "-c", "--sparse", *options, "-C", str(made), "sparse"]
    content = subprocess.run(command, capture_output=True, check=True).stdout
    assert len(content) < 5_000_000
    copy = unpacked(tmp_path, content) / "sparse"
    assert copy.stat().st_size == 50_000_000
    assert copy.stat().st_blocks * 512 < 5_000_000
    assert subprocess.run(["cmp", str(copy), str(made / "sparse")], check=False).returncode == 0


def test_entries_replace_those_before_them(tmp_path: Path) -> None:
    tree = unpacked(
        tmp_path,
        archive_of(
            file("a", b"1"), file("a", b"2"), folder("b"), file("b/c"), file("b"), file("d"), folder("d"), file("d/e"),
            folder("k", mode=0o700), file("k/l"), folder("k", mode=0o711), folder("m/n/o"), file("m"),
        ),
    )  # fmt: skip
    assert (tree / "a").read_bytes() == b"2"
    assert names(tree) == ["a", "b", "d", "d/e", "k", "k/l", "m"]
    assert stat.S_IMODE((tree / "k").stat().st_mode) == 0o711


def test_a_link_in_the_middle_of_a_name_is_followed_inside(tmp_path: Path) -> None:
    tree = unpacked(
        tmp_path,
        archive_of(
            folder("usr/lib"), link("lib", "usr/lib"), file("lib/one"), link("abs", "/usr/../usr/lib"), file("abs/two"),
            link("out", "../../../../usr/lib"), file("out/three"), link("made", "new/dir"), file("made/four"),
        ),
    )  # fmt: skip
    assert sorted(path.name for path in (tree / "usr/lib").iterdir()) == ["one", "three", "two"]
    assert (tree / "new/dir/four").is_file()


def test_directories_that_are_no_longer_open_are_opened_again(tmp_path: Path) -> None:
    """More of them than are kept open, named in turns, with links between them."""
    entries = [file(f"d{n}/f", b"%d" % n) for n in range(150)]
    entries += [link(f"d{n}/l", f"d{(n * 7 + 75) % 150}/f", tarfile.LNKTYPE) for n in range(150)]
    entries += [link(f"d{n}/l", f"d{(n * 7 + 75) % 150}/f", tarfile.LNKTYPE) for n in range(150)]
    tree = unpacked(tmp_path, archive_of(*entries))
    for n in range(150):
        assert (tree / f"d{n}/f").read_text() == str(n)
        assert (tree / f"d{n}/l").read_text() == str((n * 7 + 75) % 150)


def test_python_and_we_read_the_same_from_what_tar_writes(tmp_path: Path) -> None:
    made = make_tree(tmp_path / "made")
    (made / "deleted").unlink()
    (made / "fifo").unlink()  # the oldest format has none
    for format in ("v7", "oldgnu", "gnu", "ustar", "posix"):
        content = subprocess.run(
            ["tar", "-c", f"--format={format}", "--sort=name", "-C", str(made), "."], capture_output=True, check=True
        ).stdout
        (tmp_path / format).mkdir()
        tree = unpacked(tmp_path / format, content)
        assert names(tree) == names(made)
        for name in names(made):
            one, two = (made / name).lstat(), (tree / name).lstat()
            assert (one.st_mode, one.st_uid, one.st_size * (not stat.S_ISDIR(one.st_mode))) == (
                two.st_mode, two.st_uid, two.st_size * (not stat.S_ISDIR(two.st_mode)),
            )  # fmt: skip


# Archives that mean harm


def evil() -> Iterator[tuple[str, bytes]]:
    yield "dots", archive_of(file("../outside"))
    yield "dots inside", archive_of(file("a/../../outside"))
    yield "dots in a whiteout", archive_of(file(".wh..."))
    yield "a dot in a whiteout", archive_of(file("a/.wh.."))
    yield "no name in a whiteout", archive_of(file(".wh."))
    yield "hard link to the host", archive_of(link("a", "../../../etc/passwd", tarfile.LNKTYPE))
    yield "hard link to what is not there", archive_of(link("a", "/etc/passwd", tarfile.LNKTYPE))
    yield "hard link to a directory", archive_of(folder("d"), link("a", "d", tarfile.LNKTYPE))
    yield "a link to nothing", archive_of(link("a", ""))
    yield "links in a circle", archive_of(link("a", "b"), link("b", "a"), file("a/x"))
    yield "a file as a directory", archive_of(file("a"), file("a/b"))
    yield "a component that is too long", archive_of(file("x" * 256))
    yield "a name that is too long", archive_of(file("/".join(["d" * 200] * 25)))
    yield "an owner out of range", archive_of(file("a", uid=2**32))
    yield "the root as a file", archive_of(file("./"))
    yield "a time out of range", archive_of(file("a", pax_headers={"mtime": "9" * 30}))
    yield "no time", archive_of(file("a", pax_headers={"mtime": "yesterday"}))
    yield "negative size", archive_of(file("a", pax_headers={"size": "-1"}))
    yield "huge size", archive_of(file("a", pax_headers={"size": "9" * 18}))
    yield (
        "a sparse file of exabytes",
        archive_of(file("a", b"", pax_headers={"GNU.sparse.map": "", "GNU.sparse.size": "9" * 18})),
    )
    yield "segments outside", archive_of(file("a", b"x", pax_headers={"GNU.sparse.map": "5,1", "GNU.sparse.size": "3"}))
    yield (
        "segments that overlap",
        archive_of(file("a", b"xx", pax_headers={"GNU.sparse.map": "0,1,0,1", "GNU.sparse.size": "3"})),
    )
    yield "a zero in a name", archive_of(file("a", pax_headers={"path": "a\0b"}))
    yield "an unknown kind", archive_of(("a", {"type": b"Z"}))
    yield "a megabyte of records", archive_of(file("a", pax_headers={"comment": "x" * (2 << 20)}))
    header = tarfile.TarInfo("a")
    header.size = 1 << 40
    yield "a file that ends early", header.tobuf() + b"x" * 600
    yield "a header that ends early", archive_of(file("a"))[:300]
    yield "no tar", b"x" * 1024
    broken = bytearray(archive_of(file("a")))
    broken[0] ^= 1
    yield "a wrong checksum", bytes(broken)
    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    yield "a long name of gigabytes", long.tobuf() + b"x" * 4096
    records = tarfile.TarInfo("x")
    records.type, records.size = tarfile.XHDTYPE, 20
    for text in (b"99 path=x\n", b"x path=y\n", b"0 a=b\n", b"9 nothing", b"999999999999 a=b\n", b" 5 a=b\n"):
        yield f"records {text!r}", records.tobuf() + text.ljust(20, b"\0").ljust(512, b"\0") + archive_of(file("a"))


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in evil()])
def test_a_hostile_layer_is_one_error_and_nothing_outside_is_touched(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in").mkdir()
    before = names(tmp_path)
    passwd = Path("/etc/passwd").stat()
    with pytest.raises(TestbedError) as caught:
        unpacked(tmp_path / "in", content)
    assert caught.value.message.startswith("layer: ") and "\n" not in caught.value.message
    assert [name for name in names(tmp_path) if not name.startswith("in/tree")] == before
    after = Path("/etc/passwd").stat()
    assert (passwd.st_nlink, passwd.st_mtime_ns) == (after.st_nlink, after.st_mtime_ns)


def test_links_never_lead_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    up = "../" * 10
    tree = unpacked(
        tmp_path,
        archive_of(
            link("a", f"{up}{outside}"), file("a/written"), link("b", str(outside)), file("b/.wh.kept"),
            link("c", "/proc/self/root"), file("c/tmp/written"), link("b/d", str(outside)), file("b/d/kept"),
        ),
    )  # fmt: skip
    assert names(outside) == ["kept"] and (outside / "kept").read_text() == "kept"
    assert (tree / f".{outside}" / "written").is_file()


@pytest.mark.parametrize(
    ("content", "limits", "what"),
    [
        (lambda: archive_of(*(file(f"{n}") for n in range(101))), Limits(entries=100), "more than 100 entries"),
        (lambda: archive_of(file("a", b"x" * 600), file("b", b"x" * 600)), Limits(content_bytes=1000), "1000 bytes"),
        (
            lambda: archive_of(file("a", b"", pax_headers={"GNU.sparse.map": "", "GNU.sparse.size": "2000"})),
            Limits(content_bytes=1000),
            "1000 bytes",
        ),
        (lambda: archive_of(file("a")) + bytes(5000), Limits(content_bytes=1000), "after its end"),
    ],
)
def test_a_layer_may_hold_so_much(tmp_path: Path, content: Callable[[], bytes], limits: Limits, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        unpacked(tmp_path, content(), limits)


def test_time_is_linear_where_archives_repeat_themselves(tmp_path: Path) -> None:
    """Directories that are made and replaced, long chains of links, deep names: ten times as many take ten times as
    long, give or take what the host does meanwhile."""

    def spent(count: int) -> float:
        chain = [link(f"l{n}", f"l{n + 1}") for n in range(30)] + [folder("l30")]
        turns = ((folder("d"), file("d/x"), file("d"), file(f"l{n % 30}/y{n}")) for n in range(count))
        entries = [entry for turn in turns for entry in turn]
        (tmp_path / str(count)).mkdir()
        began = time.process_time()
        unpacked(tmp_path / str(count), archive_of(*chain, *entries))
        return time.process_time() - began

    spent(20)
    assert spent(600) < 40 * max(spent(60), 0.02)


def test_an_opaque_directory_of_the_archive_is_not_what_an_attribute_says(tmp_path: Path) -> None:
    tree = unpacked(tmp_path, archive_of(folder("d", pax_headers={f"SCHILY.xattr.{OPAQUE_XATTR}": "y"})))
    assert not is_opaque(tree / "d")
