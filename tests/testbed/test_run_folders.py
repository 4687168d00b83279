"""A run folder is found by its path, by its id, or as the newest."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.results import RunFolder
from testbed.run_folders import find_newest, locate


def test_the_newest_run_is_the_last_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run"):
        find_newest(tmp_path)
    for name in ("20260102T000000Z-b-1", "20260103T000000Z-a-1", "20260101T000000Z-c-1"):
        RunFolder.create(tmp_path, name, {"run": name})
    (tmp_path / "20990101T000000Z-broken").mkdir()
    assert find_newest(tmp_path).name == "20260103T000000Z-a-1"


def test_a_run_is_located_by_path_by_id_or_as_the_newest(tmp_path: Path) -> None:
    for name in ("20260101T000000Z-a-1", "20260102T000000Z-a-2"):
        RunFolder.create(tmp_path, name, {"run": name})
    first = tmp_path / "20260101T000000Z-a-1"
    assert locate(str(first), tmp_path / "elsewhere") == first
    assert locate(first.name, tmp_path) == first
    assert locate("", tmp_path).name == "20260102T000000Z-a-2"
    with pytest.raises(UsageError, match="does not exist"):
        RunFolder.open(locate("nonsense", tmp_path))
