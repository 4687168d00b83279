"""Directories for the files of tests' runs, with paths as short as the names of sockets must be.

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

TEST_RUN = "test-"
_ROOT = Path("/run")
_PREFIX = f"testbed-{TEST_RUN}"
_NAME = re.compile(rf"{_PREFIX}([0-9a-f]+)-[0-9a-f]+")
# Chance decides where the numbers of a process begin, for its id comes again.
_numbers = itertools.count(random.randrange(1 << 23))


def name_run() -> str:
    """Return a run id that nothing else uses."""
    return f"{TEST_RUN}{os.getpid():x}-{next(_numbers):x}"


def scratch_path(run: str) -> Path:
    """Return the path of a run's directory."""
    return _ROOT / f"testbed-{run}"


def find_dead() -> list[Path]:
    """Return the directories whose process is gone."""
    return sorted(path for path in _ROOT.glob(f"{_PREFIX}*") if _is_dead(path))


def _is_dead(scratch: Path) -> bool:
    name = _NAME.fullmatch(scratch.name)
    return name is not None and not Path(f"/proc/{int(name[1], 16)}").exists()


def remove(scratch: Path) -> None:
    """Remove a directory with what is in it, and what a test has mounted on it."""
    while scratch.is_mount():
        subprocess.run(["umount", "--lazy", str(scratch)], check=True)
    shutil.rmtree(scratch)
