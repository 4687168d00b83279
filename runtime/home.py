"""This module finds the store, which keeps what outlives a run: images, guest kernels, disks and verdicts."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from runtime.errors import PrerequisiteError

# A file in the store that seals it.
SEAL = "sealed"


def store_root() -> Path:
    """Return the directory of the store, which is ``$TESTBED_HOME`` or ``/var/lib/testbed``.

    The directory need not exist. Raises PrerequisiteError when the path is no directory or cannot be examined.
    """
    path = Path(os.path.abspath(os.environ.get("TESTBED_HOME") or "/var/lib/testbed"))
    try:
        directory = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        return path
    except OSError as error:
        raise PrerequisiteError(f"TESTBED_HOME: {path}: {error.strerror}", "set it to a directory") from error
    if not directory:
        raise PrerequisiteError(f"TESTBED_HOME: {path} is not a directory", "set it to one")
    return path


def is_sealed() -> bool:
    """Return whether the store is sealed: it is complete, so what it holds is taken by its name, and nothing is made
    for it or fetched."""
    return (store_root() / SEAL).exists()
