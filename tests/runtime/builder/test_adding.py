"""COPY and ADD with all their flags, archives, here-documents and addresses, in builds for real."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import zstandard

from runtime.builder import archives
from runtime.errors import UsageError, WorkloadError
from runtime.images.model import Image
from runtime.images.rootfs import lookup, read_text
from runtime.images.store import Store

pytestmark = pytest.mark.root

Build = Callable[..., Image]


def files(image: Image, layer: int = -1) -> set[str]:
    root = image.layers[layer].path
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def text_of(image: Image, path: str) -> str:
    return read_text(path, image.layers)


def status_of(image: Image, path: str) -> os.stat_result:
    found = lookup(path, image.layers)
    assert found is not None, path
    return found.lstat()


@pytest.fixture
def tree(context: Path) -> Path:
    """A context with files two directories deep."""
    for name in ("a.txt", "b.md", "x/a.txt", "x/b.md", "x/deep/c.txt", "y/d.txt"):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text(name)
    (context / "x/deep").chmod(0o700)
    return context


# --- flags


@pytest.mark.parametrize(
    ("copy", "made"),
    [
        ("--exclude=*.md . /c/", "a.txt x x/a.txt x/b.md x/deep x/deep/c.txt y y/d.txt"),
        ("--exclude=**/*.md --exclude=x/deep . /c/", "a.txt x x/a.txt y y/d.txt"),
        ("--exclude=a* *.* /c/", "b.md"),
        ("--parents x/deep/c.txt a.txt /c", "x x/deep x/deep/c.txt a.txt"),
        ("--parents x/./deep/c.txt y /c", "deep deep/c.txt y y/d.txt"),
        ("--parents --exclude=**/b.md **/*.txt /c", "a.txt x x/a.txt x/deep x/deep/c.txt y y/d.txt"),
        ("--link x/a.txt /c/", "a.txt"),
    ],
)
def test_which_files_flags_of_copy_take(build_text: Build, tree: Path, copy: str, made: str) -> None:
    image = build_text(f"FROM tiny\nCOPY {copy}\n")
    assert {name.removeprefix("c/") for name in files(image) - {"c"}} == set(made.split())
    if "--parents x/deep" in copy:
        assert stat.S_IMODE(status_of(image, "/c/x/deep").st_mode) == 0o700, "a directory is as the context has it"


def test_wild_cards_may_match_nothing_and_exclusions_leave_nothing(
    build_text: Build, tree: Path, progress: list[str]
) -> None:
    image = build_text(
        "FROM tiny\nCOPY a.txt no*here.lock /c/\nCOPY --exclude=* a.txt /d/\nCOPY --from=tiny /no* /e/\n"
    )
    assert files(image, 1) == {"c", "c/a.txt"} and not files(image, 2) | files(image, 3)
    assert sum("nothing to copy: " in line for line in progress) == 3
    with pytest.raises(UsageError, match="no such file"):
        build_text("FROM tiny\nCOPY nowhere/*.lock /c/\n")


def test_what_the_destination_links_to_is_written_and_the_link_stays(build_text: Build, tree: Path) -> None:
    image = build_text(
        "FROM tiny\nRUN echo old > /file && ln -s file /to && ln -s /missing/file /dangling\n"
        "COPY a.txt /to\nCOPY b.md /dangling\nCOPY <<EOF /to\ntext\nEOF\n"
    )
    assert files(image, 2) == files(image, 4) == {"file"} and files(image, 3) == {"missing", "missing/file"}
    assert text_of(image, "/file") == text_of(image, "/to") == "text\n"


def test_link_makes_a_layer_that_does_not_depend_on_those_below(build_text: Build, tree: Path) -> None:
    first = build_text("FROM tiny\nRUN ln -s /srv /c\nCOPY --link a.txt /c/\n")
    second = build_text("FROM tiny\nCOPY --link a.txt /c/\n")
    assert first.layers[-1] == second.layers[-1] and files(first) == {"c", "c/a.txt"}
    assert first.layers[-1] != build_text("FROM tiny\nRUN ln -s /srv /c\nCOPY a.txt /c/\n").layers[-1]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("u=rwX,go=rX", (0o755, 0o644)), ("a+x", (0o711, 0o755)), ("g+w,o-r", (0o720, 0o660)), ("700", (0o700, 0o700))],
)
def test_chmod_by_symbols(build_text: Build, tree: Path, mode: str, expected: tuple[int, int]) -> None:
    (tree / "x/deep/c.txt").chmod(0o644)
    image = build_text(f"FROM tiny\nENV M={mode}\nCOPY --chmod=$M x /c/\n")
    assert tuple(stat.S_IMODE(status_of(image, f"/c/{name}").st_mode) for name in ("deep", "deep/c.txt")) == expected


# --- here-documents


def test_here_documents_become_files(build_text: Build) -> None:
    image = build_text(
        'FROM tiny\nENV A=env\nCOPY --chmod=755 <<EOF <<"two.txt" /c/\n$A ${B:-none} "quoted" \\$A\nEOF\n'
        "raw $A\ntwo.txt\n"
        "COPY --chown=alice <<-E /c/three\n\ttabbed\n\tE\nADD <<E /four\nadded\nE\n"
    )
    assert text_of(image, "/c/EOF") == 'env none "quoted" $A\n' and text_of(image, "/c/two.txt") == "raw $A\n"
    assert (text_of(image, "/c/three"), text_of(image, "/four")) == ("tabbed\n", "added\n")
    assert stat.S_IMODE(status_of(image, "/c/EOF").st_mode) == 0o755
    assert (status_of(image, "/c/three").st_uid, stat.S_IMODE(status_of(image, "/c/three").st_mode)) == (1000, 0o644)


# --- archives


def archive(path: Path, *members: tuple[str, dict[str, object], bytes], mode: Any = "w") -> None:
    with tarfile.open(path, mode) as made:
        for name, fields, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1_000_000_000
            for field, value in fields.items():
                setattr(info, field, value)
            made.addfile(info, io.BytesIO(content))


DIRECTORY, LINK, HARD = {"type": tarfile.DIRTYPE}, {"type": tarfile.SYMTYPE}, {"type": tarfile.LNKTYPE}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zstd"])
def test_an_archive_is_unpacked_whatever_it_is_called(build_text: Build, context: Path, mode: str) -> None:
    archive(
        context / "thing",
        ("./", {**DIRECTORY, "mode": 0o700}, b""),
        ("d/", {**DIRECTORY, "mode": 0o750, "uid": 7}, b""),
        ("d/file", {"mode": 0o4755, "uid": 5, "gid": 6}, b"content"),
        ("d/hard", {**HARD, "linkname": "d/file"}, b""),
        ("link", {**LINK, "linkname": "/outside"}, b""),
        ("deep/er/file", {}, b"made"),
        mode="w" if mode == "zstd" else mode,
    )
    if mode == "zstd":
        (context / "thing").write_bytes(zstandard.compress((context / "thing").read_bytes()))
    image = build_text("FROM tiny\nADD thing /c/\nADD --chown=alice --chmod=600 thing /own\nCOPY thing /copied\n")
    status = status_of(image, "/c/d/file")
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (5, 6, 0o4755)
    assert (int(status.st_mtime), status.st_nlink) == (1_000_000_000, 2)
    assert (text_of(image, "/c/d/file"), text_of(image, "/c/deep/er/file")) == ("content", "made")
    assert os.readlink(image.layers[1].path / "c/link") == "/outside"
    assert stat.S_IMODE(status_of(image, "/c").st_mode) == 0o755, "the destination stays as it is made"
    own = status_of(image, "/own/d/file")
    assert (own.st_uid, stat.S_IMODE(own.st_mode)) == (1000, 0o600)
    assert status_of(image, "/copied").st_size == (context / "thing").stat().st_size
    assert build_text("FROM tiny\nADD --unpack=false thing /c/\n") and files(build_text("FROM tiny\nADD thing /c/\n"))


def test_an_archive_made_right_before_keeps_its_times(build_text: Build, context: Path) -> None:
    """Or the layer would be another one when it is built a second later."""
    (context / "file").write_text("x")
    now = int(time.time())
    os.utime(context / "file", (now, now))
    time.sleep(0.05)
    with tarfile.open(context / "a.tar", "w") as made:
        made.add(context / "file", "file")
    assert int(status_of(build_text("FROM tiny\nADD a.tar /c/\n"), "/c/file").st_mtime) == now


def test_what_is_no_archive_is_copied(build_text: Build, context: Path) -> None:
    (context / "a.tar.gz").write_text("no archive")
    (context / "empty.tar").write_text("")
    (context / "text.gz").write_bytes(gzip.compress(b"no archive either"))
    archive(context / "void.tar")
    (context / "text.zst").write_bytes(zstandard.compress(b"nor this"))
    image = build_text("FROM tiny\nADD a.tar.gz empty.tar text.gz text.zst void.tar /c/\n")
    assert files(image) == {"c", "c/a.tar.gz", "c/empty.tar", "c/text.gz", "c/text.zst", "c/void.tar"}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("../out", {}, b"x")], "leads out of the archive"),
        ([("a/../../out", {}, b"x")], "leads out of the archive"),
        ([("d", {**LINK, "linkname": "/tmp"}, b""), ("d/out", {}, b"x")], "is below a file, or is one"),
        ([("d", {**LINK, "linkname": "../../.."}, b""), ("d/sub/", DIRECTORY, b"")], "is below a file, or is one"),
        ([("h", {**HARD, "linkname": "../../etc/passwd"}, b"")], "leads out of the archive"),
        ([("h", {**HARD, "linkname": "etc/nothing"}, b"")], "a hard link to a file that does not come before"),
        ([("d/", DIRECTORY, b""), ("d", {}, b"x")], "a directory of this name"),
        ([(".wh.passwd", {}, b"x")], "says that another is deleted"),
    ],
)
def test_a_hostile_archive_is_refused_and_writes_nothing_outside(
    build_text: Build, context: Path, store: Store, members: list[tuple[str, dict[str, object], bytes]], message: str
) -> None:
    archive(context / "evil.tar", *members)
    before = sorted(context.parent.iterdir())
    with pytest.raises(UsageError) as caught:
        build_text("FROM tiny\nADD evil.tar /c/\n")
    assert "Dockerfile:2: " in caught.value.message and message in caught.value.message
    assert store.leftovers() == () and not Path("/tmp/out").exists() and not Path("/tmp/sub").exists()
    assert [path for path in sorted(context.parent.iterdir()) if path.name != "Dockerfile"] == before


def test_an_absolute_name_stays_below_the_destination(build_text: Build, context: Path) -> None:
    archive(context / "a.tar", ("/etc/x", {}, b"x"))
    assert files(build_text("FROM tiny\nADD a.tar /c/\n")) == {"c", "c/etc", "c/etc/x"}


def test_an_archive_without_end_is_refused(build_text: Build, context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(context / "a.tar", *((f"f{number}", {}, b"x" * 100) for number in range(20)))
    monkeypatch.setattr(archives, "MOST_ENTRIES", 10)
    with pytest.raises(UsageError, match="more than 10 entries"):
        build_text("FROM tiny\nADD a.tar /c/\n")
    monkeypatch.undo()
    monkeypatch.setattr(archives, "MOST_BYTES", 1000)
    with pytest.raises(UsageError, match="or 1000 bytes"):
        build_text("FROM tiny\nADD a.tar /c/\n")


def test_a_description_without_end_is_not_read_into_memory(build_text: Build, context: Path) -> None:
    archive(context / "a.tar", ("file", {}, b"x"), ("long", {"type": tarfile.GNUTYPE_LONGNAME}, b"n" * (2 << 20)))
    with pytest.raises(UsageError, match="an entry's description has more than 1048576 bytes"):
        build_text("FROM tiny\nADD a.tar /c/\n")


def test_a_damaged_archive_is_an_error_at_any_byte(build_text: Build, context: Path) -> None:
    archive(context / "a.tar", ("file", {}, os.urandom(20_000)), ("other", {}, b"x"), mode="w:gz")
    whole = (context / "a.tar").read_bytes()
    for length in range(300, len(whole), 4001):
        (context / "a.tar").write_bytes(whole[:length])
        with pytest.raises(UsageError, match=r"Dockerfile:2: ADD a.tar: the archive is damaged"):
            build_text("FROM tiny\nADD a.tar /c/\n")


# --- addresses

CONTENT = b"from the server"
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server that answers with files, redirections and failures, for any host that a client names."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            length = len(CONTENT) + (9 if path == "/cut" else 0)
            status = {"/gone": 404, "/moved/x": 302, "/file": 302}.get(path, 200)
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/file.txt" if path == "/moved/x" else "file:///etc/passwd")
            self.send_header("Content-Length", str(length))
            self.send_header("Last-Modified", "Thu, 01 Jan 2004 00:00:00 GMT")
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def proxied(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is this host's proxy, on its loopback: what is fetched comes through it."""
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server)


@pytest.mark.usefixtures("proxied")
def test_a_file_is_fetched_with_its_time_for_its_owner(build_text: Build) -> None:
    server = "http://files.example"
    image = build_text(
        f"FROM tiny\nARG SUM={DIGEST}\nADD --checksum=$SUM {server}/moved/x /c/\nADD {server}/a%20b.txt?x=1 /c/\n"
        f"ADD --chmod=644 --chown=alice {server}/file.txt /named\n"
    )
    assert text_of(image, "/c/x") == text_of(image, "/c/a b.txt") == text_of(image, "/named") == CONTENT.decode()
    status, named = status_of(image, "/c/x"), status_of(image, "/named")
    assert (stat.S_IMODE(status.st_mode), time.gmtime(status.st_mtime).tm_year) == (0o600, 2004)
    assert (stat.S_IMODE(named.st_mode), named.st_uid) == (0o644, 1000)


@pytest.mark.usefixtures("proxied")
def test_what_has_a_checksum_is_fetched_once(build_text: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"FROM tiny\nADD --checksum={DIGEST} http://files.example/x /c/\n"
    image = build_text(text)
    assert text_of(image, "/c/x") == CONTENT.decode()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert build_text(text).id == image.id
    with pytest.raises(WorkloadError, match=r"Dockerfile:2: ADD http://files.example/x: "):
        build_text(text.replace("/c/", "/d/"))


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("ADD {0}/gone /c", WorkloadError, "the server answered 404"),
        ("ADD {0}/cut /c", WorkloadError, "15 of 24 bytes came"),
        ("ADD {0}/file /c", WorkloadError, "not allowed"),
        ("ADD {0}/ /c/", UsageError, "the address has no file name"),
        (f"ADD --checksum=sha256:{'0' * 64} {{0}}/x /c", UsageError, f"its checksum is {DIGEST}, not sha256:000"),
        ("ADD --checksum=sha256:12 {0}/x /c", UsageError, "is not sha256: and its 64"),
        ("ADD --checksum=sha256:12 file /c", UsageError, "--checksum is for the addresses of files"),
        ("ADD https://example.org/x.git /c", UsageError, "a git repository"),
    ],
)
@pytest.mark.usefixtures("proxied")
def test_what_cannot_be_fetched(
    build_text: Build, context: Path, store: Store, what: str, error: type[Exception], message: str
) -> None:
    server = "http://files.example"
    (context / "file").write_text("x")
    with pytest.raises(error) as caught:
        build_text(f"FROM tiny\n\n{what.format(server)}\n")
    assert "Dockerfile:3: " in str(caught.value) and message in str(caught.value)
    assert store.leftovers() == ()


def test_the_hosts_loopback_is_not_reached(build_text: Build, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(WorkloadError, match=r"Dockerfile:2: ADD http://127.0.0.1:\d+/x: .*refused"):
        build_text(f"FROM tiny\nADD {server}/x /c\n")
