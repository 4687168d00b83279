"""In which order services are asked to end."""

from __future__ import annotations

from pathlib import Path

from testbed.projects.stopping import group_by_end, read_grace, write_grace


def test_what_others_depend_on_ends_last() -> None:
    needed = {"db": [], "cache": [], "web": ["db", "cache"], "proxy": ["web"], "alone": []}
    assert group_by_end(needed) == [["proxy", "alone"], ["web"], ["db", "cache"]]
    assert group_by_end({}) == []


def test_word_of_how_long_they_have(tmp_path: Path) -> None:
    assert read_grace(tmp_path) is None
    write_grace(tmp_path, 2.5)
    assert read_grace(tmp_path) == 2.5
