"""What the account that QEMU runs as can reach: as the platform sees it, and as the kernel does."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from testbed.platforms.account import Account, require_reach

pytestmark = pytest.mark.root
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


def refused(file: Path) -> str:
    """What stands between the account and the file, if anything does."""
    try:
        require_reach(SOMEBODY, file)
    except PrerequisiteError as error:
        return str(error)
    return ""


def readable(file: Path) -> bool:
    """The kernel's word: whether a process with the account's rights can read the file."""
    own, *others = SOMEBODY.gids
    command = ["cat", str(file)]
    return not subprocess.run(
        command, user=SOMEBODY.uid, group=own, extra_groups=others, capture_output=True
    ).returncode


def test_what_everybody_can_read_is_in_reach(file: Path) -> None:
    assert refused(file) == "" and readable(file)


def test_the_directory_that_shuts_it_out_is_named(file: Path) -> None:
    file.parent.chmod(0o700)
    assert f"{file.parent} is drwx------" in refused(file) and not readable(file)
    assert f"chmod o+x {file.parent}" in refused(file)


def test_a_file_of_its_owner_alone_is_out_of_reach(file: Path) -> None:
    file.chmod(0o600)
    assert "cannot read" in refused(file) and not readable(file)


def test_its_own_and_its_groups_files_are_in_reach(file: Path) -> None:
    file.chmod(0o640)
    os.chown(file, 0, 64_002)
    assert refused(file) == "" and readable(file)
    file.chmod(0o400)
    assert "cannot read" in refused(file) and not readable(file)
    SOMEBODY.give(file)
    assert refused(file) == "" and readable(file)
