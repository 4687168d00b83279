"""Compiles the program that samples: a static binary, which runs where there is no compiler, too.

python -m testbed.sampler.build             compile
python -m testbed.sampler.build --analyze   look for faults: gcc -fanalyzer, and clang-tidy
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from runtime.atomic import partial
from runtime.errors import PrerequisiteError, TestbedError
from runtime.launcher.build import HERE as LAUNCHER
from runtime.launcher.build import WARNINGS

HERE = Path(__file__).resolve().parent
SOURCE, BINARY = HERE / "sampler.c", HERE / "testbed-sampler"
_FLAGS = (*WARNINGS, "-O2", "-static")


def is_current() -> bool:
    """Return whether the binary exists and no source of it is newer; an image has the binary alone."""
    if not BINARY.exists():
        return False
    return not SOURCE.exists() or BINARY.stat().st_mtime >= max(
        path.stat().st_mtime for path in (SOURCE, Path(__file__))
    )


@cache
def ensure_binary() -> Path:
    """Return the binary, compiled if it is out of date.

    Raises PrerequisiteError without a compiler, TestbedError when it fails.
    """
    if is_current():
        return BINARY
    try:
        with partial(BINARY) as unfinished:
            subprocess.run([os.environ.get("CC", "gcc"), *_FLAGS, str(SOURCE), "-o", str(unfinished)], check=True)
    except FileNotFoundError as error:
        raise PrerequisiteError(f"compile {BINARY.name}: {error}", "install gcc and libc6-dev") from error
    except subprocess.CalledProcessError as error:
        raise TestbedError(f"compile {BINARY.name}: gcc exited with {error.returncode}") from error
    return BINARY


def analyze() -> None:
    """Have gcc and clang-tidy look for faults. Raises PrerequisiteError without them, TestbedError for what they find;
    they print it themselves."""
    tidy = ["clang-tidy", "--quiet", f"--config-file={LAUNCHER / '.clang-tidy'}", str(SOURCE), "--", "-D_GNU_SOURCE"]
    for command in (["gcc", *_FLAGS, "-fanalyzer", "-c", "-o", os.devnull, str(SOURCE)], [*tidy, "-std=gnu11"]):
        try:
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        except FileNotFoundError as error:
            raise PrerequisiteError(f"analyze the sampler: {error}", f"install {command[0]}") from error
        if done.returncode:  # else it only counts what .clang-tidy leaves out
            print(done.stderr, file=sys.stderr)
            raise TestbedError(f"analyze the sampler: {command[0]} found something")


if __name__ == "__main__":
    try:
        analyze() if sys.argv[1:] == ["--analyze"] else ensure_binary()
    except TestbedError as problem:
        sys.exit(f"error: {problem}")
