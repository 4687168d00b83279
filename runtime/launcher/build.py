"""Compiles the launcher: the CPython extension and the static binary, when a source is newer than they are.

python -m runtime.launcher.build
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from runtime.atomic import partial
from runtime.errors import PrerequisiteError, TestbedError

HERE = Path(__file__).resolve().parent
BINARY = HERE / "testbed-launcher"
EXTENSION = HERE / f"_launcher{sysconfig.get_config_var('EXT_SUFFIX')}"
SHARED_SOURCES = ("plan.c", "steps.c", "spawn.c")
WARNINGS = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wshadow")
HARDENING = ("-O2", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-Wl,-z,relro,-z,now")


def commands() -> dict[Path, list[str]]:
    """The compiler's command line for each output."""
    include = sysconfig.get_paths()["include"]
    compiler = [os.environ.get("CC", "gcc"), *WARNINGS, *HARDENING]
    shared = [str(HERE / name) for name in SHARED_SOURCES]
    return {
        BINARY: [*compiler, "-static", str(HERE / "main.c"), *shared],
        EXTENSION: [*compiler, "-shared", "-fPIC", f"-I{include}", str(HERE / "module.c"), *shared],
    }


def is_current(output: Path) -> bool:
    """Whether ``output`` exists and no source is newer."""
    sources = [*HERE.glob("*.c"), *HERE.glob("*.h"), Path(__file__)]
    return output.exists() and output.stat().st_mtime >= max(path.stat().st_mtime for path in sources)


def build() -> None:
    """Compile what is out of date. Raises PrerequisiteError without a compiler, TestbedError when it fails."""
    for output, command in commands().items():
        if is_current(output):
            continue
        try:
            with partial(output) as unfinished:
                subprocess.run([*command, "-o", str(unfinished)], check=True)
        except FileNotFoundError as error:
            raise PrerequisiteError(f"compile {output.name}: {error}", "install gcc") from error
        except subprocess.CalledProcessError as error:
            raise TestbedError(f"compile {output.name}: {command[0]} exited with {error.returncode}") from error


if __name__ == "__main__":
    try:
        build()
    except TestbedError as problem:
        sys.exit(f"error: {problem}")
