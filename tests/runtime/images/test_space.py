"""Room is asked for before a build and its lack reported as the host's shortcoming."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from runtime.images.space import free_bytes, full_disk_reported, require_space


def test_more_than_there_is(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match=r"a test needs .* MiB at .* are free") as caught:
        require_space(tmp_path, 1 << 60, "a test")
    assert "TESTBED_HOME" in caught.value.hint


def test_a_directory_that_does_not_exist_yet_is_asked_through_its_parent(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not" / "yet") > 0


def test_no_space_becomes_a_prerequisite(tmp_path: Path) -> None:
    with (
        pytest.raises(PrerequisiteError, match="write a layer: No space left"),
        full_disk_reported(tmp_path, "write a layer"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), full_disk_reported(tmp_path, "write a layer"):
        (tmp_path / "none").read_text()
