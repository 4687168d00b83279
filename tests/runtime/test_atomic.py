"""What is written to the store is there whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.atomic import partial, scratch


def test_a_file_appears_when_it_is_finished(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    with partial(target) as unfinished:
        unfinished.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert os.listdir(target.parent) == ["file"]


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), partial(tmp_path / "folder") as unfinished:
        (unfinished / "deep").mkdir(parents=True)
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_the_first_of_two_writers_of_a_directory_wins(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with partial(target) as unfinished:
        unfinished.mkdir()
        target.mkdir()
        (target / "theirs").touch()
    assert os.listdir(tmp_path) == ["folder"]
    assert os.listdir(target) == ["theirs"]


def test_the_temporary_name_says_whose_it_is(tmp_path: Path) -> None:
    with scratch(tmp_path / "tree") as path:
        assert path.name == f".partial-tree-{os.getpid()}"
