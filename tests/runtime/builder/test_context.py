"""Which files of a build context are copied."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from runtime.builder.context import Context, content_digest
from runtime.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    for name in ("app/main.rb", "app/views/page.erb", "app/notes.md", "logs/keep.txt", "logs/old.log", "README.md"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def names(context: Context, pattern: str) -> list[str]:
    return [entry.name for source in context.sources(pattern) for entry in context.entries(source)]


def test_a_directory_is_its_content_parents_first(folder: Path) -> None:
    assert names(Context.at(folder), "app/") == ["main.rb", "notes.md", "views", "views/page.erb"]


def test_wild_cards(folder: Path) -> None:
    assert [path.name for path in Context.at(folder).sources("logs/*.log")] == ["old.log"]
    assert [path.name for path in Context.at(folder).sources("/README.??")] == ["README.md"]


def test_dockerignore(folder: Path) -> None:
    (folder / ".dockerignore").write_text("# notes\n**/*.md\nlogs\n!logs/keep.txt\n")
    context = Context.at(folder)
    found = names(context, ".")
    assert "app/notes.md" not in found and "README.md" not in found and "logs/old.log" not in found
    assert {"app/main.rb", "logs", "logs/keep.txt"} <= set(found)
    with pytest.raises(UsageError, match="no such file"):
        context.sources("README.md")


def kept(folder: Path, ignore: str, *files: str) -> list[str]:
    """Which of ``files`` are left after ``ignore``, as COPY of all shows them."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    (folder / ".dockerignore").write_text(ignore)
    found = set(names(Context.at(folder), "."))
    return [name for name in files if name in found]


@pytest.mark.parametrize(
    ("ignore", "left_out", "left"),
    [
        # The examples of Docker's documentation.
        (
            "# comment\n*/temp*\n*/*/temp*\ntemp?\n",
            "somedir/temporary.txt somedir/temp/x somedir/subdir/temporary.txt tempa tempb",
            "temp temporary a/b/c/temp.txt",
        ),
        ("**/*.go", "a.go b/c.go b/c/d.go", "a.gox go b/go"),
        ("*.md\n!README.md", "a.md", "README.md b/a.md"),
        ("*.md\n!README*.md\nREADME-secret.md", "a.md README-secret.md", "README.md README-x.md"),
        ("*.md\nREADME-secret.md\n!README*.md", "a.md", "README.md README-secret.md"),
        # How lines are read.
        ("  foo  \r\n/bar/\n./baz//qux\na/../here\n", "foo bar/x baz/qux here", "b/foo b/bar"),
        (" # not a comment\n#foo\n\n\t\n", "# not a comment", "#foo foo"),
        ("*\n! /kept \n", "other", "kept"),
        ("\ufefffoo", "foo", "bar"),
        ("a\x0bb\x85c\u2028d\n", "a\x0bb\x85c\u2028d", "a b c d"),
        # Classes, escapes and stars.
        ("[a-c]x\n[^a-z]y\n", "ax cx 1y", "dx ay x y"),
        ("[]x]", "", "x"),
        ("[\\]\\-]z", "]z -z", "\\z"),
        (r"\*a\?", "*a?", "ba? *ab"),
        ("a[", "", "a["),
        ("**.md", "a.md b/c.md", "md"),
        ("a**/b", "a/b ax/y/b ab", "b/b abb"),
        ("**/x/**", "x/y a/x/b/c", "a/y"),
        ("x/**", "x/w x/y/z", "y/x"),
        ("**", "a b/c", ""),
        ("**\n!src", "a b/src", "src/b"),
        ("src\n!src/a/b\n", "src/c src/a/c", "src/a/b/d"),
        ("src\n!src/a\nsrc/a/b\n", "src/c src/a/b/d", "src/a/c"),
        (".", "", "a"),
        ("../a", "", "a"),
    ],
)
def test_what_patterns_leave_out(tmp_path: Path, ignore: str, left_out: str, left: str) -> None:
    separator = "\0" if left_out.startswith(("# not", "a\x0b")) else " "
    left_out_names = [name for name in left_out.split(separator) if name]
    if ignore in ("[]x]", "a["):
        with pytest.raises(UsageError, match=r"dockerignore:1: a character class"):
            kept(tmp_path, ignore, left)
        return
    left_names = left.split()
    assert kept(tmp_path, ignore, *left_out_names, *left_names) == left_names


def test_an_ignored_directory_is_not_there(folder: Path) -> None:
    (folder / ".dockerignore").write_text("logs\napp/views\n!app/views/page.erb\n")
    context = Context.at(folder)
    for pattern in ("logs", "logs/keep.txt"):
        with pytest.raises(UsageError, match="no such file"):
            context.sources(pattern)
    assert context.sources("log*") == ()
    assert names(context, "app/views") == ["page.erb"]
    assert names(context, "app") == ["main.rb", "notes.md", "views", "views/page.erb"]
    assert not {"logs", "logs/keep.txt"} & set(names(context, "."))


def test_a_dockerfile_may_have_its_own(folder: Path) -> None:
    (folder / ".dockerignore").write_text("app\n")
    (folder / "web.Dockerfile.dockerignore").write_text("logs\n")
    assert "app/main.rb" in names(Context.at(folder, folder / "web.Dockerfile"), ".")
    assert "logs/old.log" not in names(Context.at(folder, folder / "web.Dockerfile"), ".")
    assert "app/main.rb" not in names(Context.at(folder, folder / "Dockerfile"), ".")


def test_what_is_ignored_is_not_reached_by_a_link(folder: Path) -> None:
    (folder / ".dockerignore").write_text("logs\nhidden\n")
    (folder / "link").symlink_to("logs/keep.txt")
    (folder / "links").symlink_to("logs")
    (folder / "hidden").symlink_to("app")
    for pattern in ("link", "links", "hidden", "links/keep.txt"):
        with pytest.raises(UsageError, match="no such file"):
            Context.at(folder).sources(pattern)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\n!\n", ":2: an exclamation mark without"),
        (b"[^", ":1: a character class"),
        (b"\\", ":1: it ends in a backslash"),
        (b"*a" * 100, ":1: a pattern of more than 64"),
        (b"a" * 5000, ":1: a pattern of more than 4096"),
        (b"a\n" * 10_001, ":10001: more than 10000 patterns"),
        (b"a\n" * 600_000, "longer than 1048576 bytes"),
        ("*.md".encode("utf-16"), "a NUL character"),
    ],
)
def test_a_malformed_dockerignore(folder: Path, content: bytes, message: str) -> None:
    (folder / ".dockerignore").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        Context.at(folder)


def test_a_dockerignore_that_is_no_file_of_the_context(folder: Path) -> None:
    (folder.parent / "secret").write_text("pass[word\n")
    path = folder / ".dockerignore"
    path.symlink_to("../secret")
    with pytest.raises(UsageError, match="leads out") as caught:
        Context.at(folder)
    assert "pass" not in str(caught.value)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UsageError, match="a named pipe"):
        Context.at(folder)


def test_patterns_are_bytes_as_names_are(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    (folder / name).write_text("")
    assert name in names(Context.at(folder), ".")
    (folder / ".dockerignore").write_bytes(b"caf\xe9\n")
    assert name not in names(Context.at(folder), ".")
    assert content_digest(list(Context.at(folder).entries(folder)))


def test_many_stars_take_no_time(tmp_path: Path) -> None:
    began = time.monotonic()
    stars = "*a" * 30 + "b\n" + "**/a" * 30 + "b\n" + "***" * 20 + "b\n" + "*" * 60 + "b\n"
    assert kept(tmp_path, stars, "a" * 200, "a/" * 100 + "a") == ["a" * 200, "a/" * 100 + "a"]
    assert Context.at(tmp_path).sources("*a" * 30)
    assert time.monotonic() - began < 5


def test_nothing_odd_in_a_context_stops_or_hangs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    (folder / "turn").symlink_to("pirouette")
    (folder / "pirouette").symlink_to("turn")
    (folder / "up").symlink_to(".")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(folder)  # a socket's path has at most 107 bytes
        server.bind("socket")
    context = Context.at(folder)
    found = list(context.entries(folder))
    assert {"pipe", "loop", "turn", "up"} <= {entry.name for entry in found}
    assert "socket" not in {entry.name for entry in found} and not any("up/" in entry.name for entry in found)
    assert content_digest(found)
    for pattern in ("loop", "turn", "l*p", "loop/x", "socket"):
        with pytest.raises(UsageError, match="COPY "):
            context.sources(pattern)


def test_folders_may_be_nested_deep(folder: Path) -> None:
    deep = folder / "/".join("d" * 1500)
    subprocess.run(["mkdir", "-p", deep], check=True)
    try:
        (deep / "file.txt").write_text("x")
        (folder / ".dockerignore").write_text("**/*.md\nd/**/no\nd\n!**/*.txt\n")
        began = time.monotonic()
        found = [entry.name for entry in Context.at(folder).entries(folder)]
        assert f"{'d/' * 1500}file.txt" in found
        assert sum(name.endswith("d") for name in found) == 1500
        assert time.monotonic() - began < 20
    finally:
        subprocess.run(["rm", "-r", folder / "d"], check=True)  # pytest's own removal is recursive


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("app/[mn]*", ["main.rb", "notes.md"]),
        ("app/[^m]*", ["notes.md", "views"]),
        ("*/**.md", ["notes.md"]),
        (r"README\.md", ["README.md"]),
        ("./app/../READ*", ["README.md"]),
    ],
)
def test_wild_cards_of_copy(folder: Path, pattern: str, found: list[str]) -> None:
    assert [path.name for path in Context.at(folder).sources(pattern)] == found


@pytest.mark.parametrize("pattern", ["../secret", "app/../../secret", "nowhere", "nowhere/*", "[", "app/\\"])
def test_outside_or_absent(folder: Path, pattern: str) -> None:
    (folder.parent / "secret").write_text("s")
    with pytest.raises(UsageError, match="COPY "):
        Context.at(folder).sources(pattern)


def test_a_link_does_not_lead_out(folder: Path) -> None:
    (folder.parent / "secret").write_text("s")
    (folder / "link").symlink_to("../secret")
    with pytest.raises(UsageError, match="outside"):
        Context.at(folder).sources("link")


def test_the_digest_follows_content_mode_and_name(folder: Path) -> None:
    context = Context.at(folder)

    def current() -> str:
        return content_digest(list(context.entries(folder / "app")))

    first = current()
    (folder / "app/main.rb").touch()
    assert current() == first
    (folder / "app/main.rb").chmod(0o755)
    second = current()
    (folder / "app/main.rb").write_text("other")
    third = current()
    (folder / "app/main.rb").rename(folder / "app/other.rb")
    assert len({first, second, third, current()}) == 4


def test_a_context_that_is_no_directory(folder: Path) -> None:
    with pytest.raises(UsageError, match="not a directory"):
        Context.at(folder / "README.md")
