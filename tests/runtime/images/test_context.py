"""Which files of a build context are copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from runtime.images.context import Context, content_digest


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


@pytest.mark.parametrize("pattern", ["../secret", "app/../../secret", "nowhere", "*.nothing"])
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
