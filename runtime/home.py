"""Where the testbed keeps what outlives a run: images, guest kernels, disks, verdicts."""

from __future__ import annotations

import os
from pathlib import Path


def store_root() -> Path:
    """The directory of the store: ``$TESTBED_HOME``, or ``/var/lib/testbed``."""
    return Path(os.environ.get("TESTBED_HOME") or "/var/lib/testbed")
