"""Compiles the load generator, a static binary, when a source is newer than it is.

python -m testbed.load.build             compile
python -m testbed.load.build --analyze   look for faults, as runtime.launcher.build does
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from runtime.errors import TestbedError
from runtime.launcher.build import STATIC, WARNINGS, compile_program, find_faults

FOLDER = Path(__file__).resolve().with_name("generator")
BINARY = FOLDER / "testbed-load"


def sources() -> list[str]:
    """Return the paths of all C files."""
    return sorted(str(path) for path in FOLDER.glob("*.c"))


def is_current() -> bool:
    """Return whether the binary exists and no source is newer; where there is no source, none is."""
    written = [path.stat().st_mtime for path in (*FOLDER.glob("*.[ch]"), Path(__file__))]
    return BINARY.exists() and (not sources() or BINARY.stat().st_mtime >= max(written))


def build() -> Path:
    """Compile the generator if it is out of date; its path. Raises PrerequisiteError without a compiler, TestbedError
    when it fails."""
    if not is_current():
        compile_program([os.environ.get("CC", "gcc"), *WARNINGS, *STATIC, *sources()], BINARY)
    return BINARY


if __name__ == "__main__":
    try:
        find_faults(sources(), ()) if sys.argv[1:] == ["--analyze"] else build()
    except TestbedError as problem:
        sys.exit(f"error: {problem}")
