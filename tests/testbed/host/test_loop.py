"""Block devices made of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed.host.loop import attach


@pytest.mark.root
def test_a_file_is_a_block_device_until_it_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "disk"
    file.write_bytes(b"testbed".ljust(4096, b"\0"))
    if not Path("/dev/loop-control").exists():
        pytest.skip("this host has no loop devices")
    device = attach(file, writable=False)
    try:
        name = Path(os.readlink(f"/proc/self/fd/{device}")).name
        assert os.read(device, 7) == b"testbed"
        assert Path("/sys/block", name, "ro").read_text() == "1\n"
        assert Path("/sys/block", name, "loop/backing_file").read_text().strip() == str(file)
    finally:
        os.close(device)
    assert not Path("/sys/block", name, "loop").exists()


@pytest.mark.root
def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    if not Path("/dev/loop-control").exists():
        pytest.skip("this host has no loop devices")
    with pytest.raises(FileNotFoundError):
        attach(tmp_path / "nothing", writable=True)
