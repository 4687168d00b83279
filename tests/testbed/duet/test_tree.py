"""Revisions of a repository, and the trees that are made of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runtime.errors import TestbedError, UsageError
from testbed.duet.tree import Revision, find_revision, make_tree


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", f"safe.directory={root}")
    done = subprocess.run(
        ["git", *identity, "-C", str(root), *arguments],
        check=True,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One commit without a player, tagged ``old``, then one with it."""
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch", "main")
    (root / "file").write_text("old")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "old")
    git(root, "tag", "old")
    (root / "testbed" / "duet").mkdir(parents=True)
    (root / "testbed" / "duet" / "player.py").write_text("")
    (root / "file").write_text("new")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "new")
    return root


def test_a_revision_is_a_commit_and_names_platforms(repository: Path) -> None:
    found = find_revision("main", repository)
    assert found == Revision("main", git(repository, "rev-parse", "main"))
    assert found.name_platforms(("container", "vm")) == (f"container@{found.commit[:12]}", f"vm@{found.commit[:12]}")


@pytest.mark.parametrize("asked", ["nowhere", "--all", "main:file", "", "HEAD^{tree}", "-h"])
def test_what_is_no_commit_is_refused(repository: Path, asked: str) -> None:
    with pytest.raises(UsageError, match="no commit of the repository"):
        find_revision(asked, repository)


def test_a_revision_without_a_player_is_refused(repository: Path) -> None:
    with pytest.raises(UsageError, match=r"--against old: the commit \w{12} has no testbed/duet/player.py"):
        find_revision("old", repository)


def test_a_folder_that_is_no_repository_has_no_revisions(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no commit of the repository"):
        find_revision("main", tmp_path)


def test_a_tree_has_the_files_of_its_commit_and_says_when_it_does_not_compile(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match="compile the launcher of"):
        make_tree(find_revision("main", repository), tmp_path / "tree", repository)
    assert (tmp_path / "tree" / "file").read_text() == "new"
    assert not (tmp_path / "tree" / ".git").exists()
