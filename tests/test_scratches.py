"""What killed tests left is removed before the next begin, and what living ones have is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import scratches
from tests.scratches import find_dead, name_run, scratch_path

ROOT = Path(__file__).resolve().parents[1]
# A test's process that ends without undoing anything.
KILLED = "from tests.scratches import *; made = scratch_path(name_run()); made.mkdir(); print(made)"


def test_names_are_short_and_differ() -> None:
    names = {name_run() for _ in range(1000)}
    assert len(names) == 1000 and max(map(len, names)) <= 18


@pytest.mark.root
def test_the_directory_of_a_dead_process_is_removed_with_its_mounts(scratch: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, capture_output=True, text=True, check=True)
    dead = Path(done.stdout.strip())
    subprocess.run(["mount", "-t", "tmpfs", "none", str(dead)], check=True)
    (dead / "file").touch()
    stored = scratches.in_store(dead.name.removeprefix("testbed-"))
    stored.mkdir(parents=True)
    store = scratches.store_path(stored.name)
    store.mkdir()
    assert {dead, stored, store} <= {*find_dead()} and scratch not in find_dead()
    for path in (dead, stored, store):
        scratches.remove(path)
        assert not path.exists()


@pytest.mark.root
def test_a_directory_of_others_is_left_alone() -> None:
    other = scratch_path(f"{scratches.TEST_RUN}not-ours")
    other.mkdir()
    try:
        assert other not in find_dead()
    finally:
        other.rmdir()
