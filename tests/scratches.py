"""Directories for the files of tests: those of runs, with paths as short as the names of sockets must be, those of
images, on the file system of the store, and those of stores of their own.

A run's name tells which process made it, so that what a killed test left is told from what a living one has.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

from runtime.home import store_root

TEST_RUN = "test-"
_ROOT = Path("/run")
_STORES = Path("/var/tmp")
_NAME = re.compile(rf"(?:testbed-)?{TEST_RUN}([0-9a-f]+)-[0-9a-f]+(?:-[a-z]+)?")
# Chance decides where the numbers of a process begin, for its id comes again.
_numbers = itertools.count(random.randrange(1 << 23))


def name_run() -> str:
    """Return a run id that nothing else uses."""
    return f"{TEST_RUN}{os.getpid():x}-{next(_numbers):x}"


def scratch_path(run: str) -> Path:
    """Return the path of a run's directory."""
    return _ROOT / f"testbed-{run}"


def in_store(run: str) -> Path:
    """Return the path of a run's directory in the store, to which its layers can be linked."""
    return store_root() / "guest" / run


def store_path(run: str) -> Path:
    """Return the path of a directory for a store of a run's own."""
    return _STORES / f"testbed-{run}"


def find_dead() -> list[Path]:
    """Return the directories whose process is gone."""
    roots = (_ROOT, _STORES, store_root() / "guest")
    return sorted(path for root in roots for path in root.glob(f"*{TEST_RUN}*") if is_dead(path.name))


def is_dead(run: str) -> bool:
    """Whether the name is that of a test's run, or of its directory, whose process is gone."""
    name = _NAME.fullmatch(run)
    return name is not None and not Path(f"/proc/{int(name[1], 16)}").exists()


def remove(scratch: Path) -> None:
    """Remove a directory with what is in it, and what a test has mounted on it."""
    while scratch.is_mount():
        subprocess.run(["umount", "--lazy", str(scratch)], check=True)
    shutil.rmtree(scratch)
