"""Compiles the program that samples, a static binary, when its source is newer than it is.

python -m testbed.sampler.build             compile
python -m testbed.sampler.build --analyze   look for faults, as runtime.launcher.build does
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from runtime.errors import TestbedError
from runtime.launcher.build import STATIC, WARNINGS, compile_program, find_faults

HERE = Path(__file__).resolve().parent
SOURCE, BINARY = HERE / "sampler.c", HERE / "testbed-sampler"


def is_current() -> bool:
    """Return whether the binary exists and its source is no newer; where there is no source, none is."""
    if not BINARY.exists() or not SOURCE.exists():
        return BINARY.exists()
    return BINARY.stat().st_mtime >= max(path.stat().st_mtime for path in (SOURCE, Path(__file__)))


def build() -> Path:
    """Compile the sampler if it is out of date, and return its path. Raises PrerequisiteError without a compiler,
    TestbedError when it fails."""
    if not is_current():
        compile_program([os.environ.get("CC", "gcc"), *WARNINGS, *STATIC, str(SOURCE)], BINARY)
    return BINARY


if __name__ == "__main__":
    try:
        find_faults([str(SOURCE)], ()) if sys.argv[1:] == ["--analyze"] else build()
    except TestbedError as problem:
        sys.exit(f"error: {problem}")
