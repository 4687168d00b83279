"""The stock system's disk: what decides it, and that it holds what it was made of, the same bits each time."""

from __future__ import annotations

import os
import re
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.images.base import Inputs
from vm_images import cloud
from vm_images.master_boot_record import FIRST_PARTITION_SECTOR

ROOT = uuid.UUID("abc862f2-08c8-5d4e-8341-1695bea10d74")
CONFIGURATION = """\
cloud_init_modules:
 - ssh
 - ssh-import-id
 - write-files
cloud_config_modules:
 - locale
ssh: kept
"""


def test_the_boot_loader_names_the_root_and_the_serial_console() -> None:
    text = cloud.grub_configuration(ROOT)
    assert f"root=UUID={ROOT} ro" in text
    assert "console=ttyS0,115200" in text
    assert cloud.system_files(ROOT)["etc/fstab"].startswith(f"UUID={ROOT} / ext4")


def test_modules_for_what_is_not_installed_are_left_out() -> None:
    left = cloud.without_modules(CONFIGURATION, ("ssh", "locale"))
    assert left.split() == "cloud_init_modules: - ssh-import-id - write-files cloud_config_modules: ssh: kept".split()


def test_every_input_is_in_the_key() -> None:
    inputs = Inputs("x86_64", "bookworm", (), cloud.PACKAGES, ())
    more = replace(inputs, packages=(*cloud.PACKAGES, "openssh-server"))
    assert len({cloud.disk_key(each) for each in (inputs, more, replace(inputs, codename="trixie"))}) == 3
    assert cloud.disk_key(replace(inputs)) == cloud.disk_key(inputs)


@pytest.mark.root
def test_the_disk_holds_the_tree_and_is_the_same_bits_again(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    for number in range(50):
        (tree / f"etc/file{number}").write_text("text" * number)
    (tree / "etc/secret").write_text("mine")
    (tree / "etc/secret").chmod(0o4700)
    os.utime(tree / "etc/secret", ns=(1, 1_000_000_000_123_456_789))
    area = b"boot".ljust(FIRST_PARTITION_SECTOR * 512, b"\0")
    cloud.write_disk(tmp_path / "one", tree, ROOT, area, 64 << 20)
    for path in (tree, *tree.rglob("*")):  # read, and changed, since: before a second has passed a disk would not tell
        os.utime(path, ns=(10**18, path.stat().st_mtime_ns))
    time.sleep(1.1)
    (tree / "etc/file1").chmod(0o644)
    os.link(tree / "etc/file2", tmp_path / "elsewhere")
    cloud.write_disk(tmp_path / "two", tree, ROOT, area, 64 << 20)
    content = (tmp_path / "one").read_bytes()
    assert content == (tmp_path / "two").read_bytes()
    assert content[:4] == b"boot"
    assert (tmp_path / "one").stat().st_blocks * 512 < len(content) // 2, "sparse"
    inside = f"{tmp_path / 'one'}?offset={FIRST_PARTITION_SECTOR * 512}"
    read = subprocess.run(["debugfs", "-R", "cat /etc/file49", inside], capture_output=True, text=True, check=True)
    assert read.stdout == "text" * 49
    status = subprocess.run(["debugfs", "-R", "stat /etc/secret", inside], capture_output=True, text=True, check=True)
    assert "Mode:  04700" in status.stdout
    for field in ("atime", "ctime", "mtime"):
        assert re.search(rf" {field}: 0x3b9aca00:{123_456_789 << 2:08x} ", status.stdout)
    subprocess.run(["e2fsck", "-f", "-n", inside], capture_output=True, check=True)
