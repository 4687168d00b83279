"""Who gets at what images and services hold, as the kernel sees it."""

from __future__ import annotations

import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.qemu.account import Account, find_emulator_account, require_reach
from testbed.qemu.enclosure import enclose, find_enclosing_group

pytestmark = pytest.mark.root


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that everybody can enter, in one that everybody can."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def may_read(path: Path, uid: int, *gids: int) -> bool:
    command = ["ls" if path.is_dir() else "cat", str(path)]
    done = subprocess.run(command, user=uid, group=gids[0], extra_groups=gids[1:], capture_output=True, check=False)
    return done.returncode == 0


def test_the_account_reads_by_name_and_nobody_else_does(folder: Path) -> None:
    account = find_emulator_account()
    disk = folder / "disk"
    disk.write_text("an image's")
    enclose(folder, folder / "new")
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "new")} == {0o710}
    require_reach(account, disk)
    assert may_read(disk, account.uid, *account.gids)
    assert not may_read(folder, account.uid, *account.gids)
    assert not may_read(disk, 65_000, 65_000)
    if find_enclosing_group(account) != account.gids[0]:
        assert not may_read(disk, 65_000, account.gids[0]), "whoever may use /dev/kvm"


def test_without_a_group_of_its_name_it_is_the_first() -> None:
    assert find_enclosing_group(Account(1, (7, 8)), "no-such-group") == 7
    assert find_enclosing_group(Account(1, (7, 0)), "root") == 0
