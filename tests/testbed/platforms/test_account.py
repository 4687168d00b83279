"""What the account that QEMU runs as can reach."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from testbed.platforms.account import Account, require_reach

SOMEBODY = Account(64_000, (64_001, 64_002))


@pytest.fixture
def file() -> Iterator[Path]:
    """A file that everybody can read, in a directory that everybody can enter."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    path = folder / "disk"
    path.touch(mode=0o644)
    yield path
    shutil.rmtree(folder)


def test_what_everybody_can_read_is_in_reach(file: Path) -> None:
    require_reach(SOMEBODY, file)


def test_the_directory_that_shuts_it_out_is_named(file: Path) -> None:
    file.parent.chmod(0o700)
    with pytest.raises(PrerequisiteError, match=f"{file.parent} is drwx------") as raised:
        require_reach(SOMEBODY, file)
    assert f"chmod o+x {file.parent}" in raised.value.hint


def test_a_file_of_its_owner_alone_is_out_of_reach(file: Path) -> None:
    file.chmod(0o600)
    with pytest.raises(PrerequisiteError, match="cannot read"):
        require_reach(SOMEBODY, file)


@pytest.mark.root
def test_its_own_and_its_groups_files_are_in_reach(file: Path) -> None:
    file.chmod(0o640)
    os.chown(file, 0, 64_002)
    require_reach(SOMEBODY, file)
    file.chmod(0o400)
    SOMEBODY.give(file)
    require_reach(SOMEBODY, file)
