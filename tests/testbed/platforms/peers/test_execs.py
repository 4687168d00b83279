"""The first program of a root is seen, also when nobody has had time to look before it has ended."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.platforms.peers.execs import ExecWatch

pytestmark = pytest.mark.root


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with a program."""
    path = tmp_path / "root"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "root", path], check=True)
    try:
        shutil.copy2("/bin/busybox", path / "busybox")
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def run(root: Path) -> int:
    with subprocess.Popen([root / "busybox", "true"]) as process:
        process.wait()
    return process.pid


def test_the_first_program_is_seen_once_and_nothing_before(root: Path) -> None:
    watch = ExecWatch()
    try:
        watch.watch("one", str(root))
        assert watch.find("one") is None and watch.wait("one", 0.01) is None
        pid = run(root)
        seen = watch.wait("one", 10)
        assert seen is not None and seen.pid == pid
        run(root)
        assert watch.find("one") == seen
        watch.forget("one")
        assert watch.find("one") is None
    finally:
        watch.close()


def test_one_that_has_ended_before_the_watching_thread_looked_is_found(root: Path) -> None:
    watch = ExecWatch()
    try:
        watch.watch("one", str(root))
        with watch._changed:  # the thread waits for this
            pid = run(root)
            assert "one" not in watch._seen
            seen = watch.find("one")
        assert seen is not None and seen.pid == pid
        assert watch.wait("one", 1) == seen
    finally:
        watch.close()
