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
from testbed.qemu.account import Account, make_guest_account, require_reach, require_users

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


def test_what_one_is_given_no_other_guest_can_use(file: Path) -> None:
    one, other = (make_guest_account(SOMEBODY, "run", number) for number in (0, 1))
    assert one.uid != other.uid and one.gids == other.gids == SOMEBODY.gids
    one.give(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert one.may(file.stat(), 6) and not other.may(file.stat(), 4)
    one.share(file)
    assert [(each.may(file.stat(), 4), each.may(file.stat(), 2)) for each in (one, other)] == [(True, False)] * 2


def test_guests_users_are_of_the_range_that_nothing_else_uses() -> None:
    runs = [f"run-{number}" for number in range(200)]
    firsts = {make_guest_account(SOMEBODY, run, 0).uid for run in runs}
    assert len(firsts) > 190
    for run in runs:
        uids = [make_guest_account(SOMEBODY, run, number).uid for number in range(4096)]
        assert len(set(uids)) == 4096 and min(uids) >= 1_879_048_192 and max(uids) < 1 << 31


def test_a_user_namespace_without_them_is_refused() -> None:
    require_users("         0          0 4294967295")
    require_users("0 100000 65536\n1879048192 200000 268435456\n")
    for uid_map in ("0 100000 65536", "0 1000 1", ""):
        with pytest.raises(PrerequisiteError, match="a user of its own"):
            require_users(uid_map)
