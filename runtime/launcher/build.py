"""Compiles the launcher, a static binary without a C library, when a source is newer than it is.

python -m runtime.launcher.build
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from runtime.atomic import partial
from runtime.errors import PrerequisiteError, TestbedError

HERE = Path(__file__).resolve().parent
BINARY = HERE / "testbed-launcher"
# The command line: the launcher under another name (front.c), where the interpreter that it hands over to is.
COMMAND = Path(sys.executable).with_name("testbed-runtime")
WARNINGS = ("-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wshadow")
# A position-independent binary with no writable code, no lazy binding, no executable stack, and a checked stack whose
# secret start.c draws. Freestanding: fortified functions are a C library's and there is none.
HARDENING = (
    "-O2",
    "-fPIE",
    "-static-pie",
    "-fstack-protector-strong",
    "-mstack-protector-guard=global",
    "-fstack-clash-protection",
    "-ftrivial-auto-var-init=zero",
    "-Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code",
)
FREESTANDING = (
    "-D_GNU_SOURCE",
    "-nostdlib",
    "-ffreestanding",
    "-fno-builtin",
    "-Wl,--no-dynamic-linker,--build-id=none",
)


def command() -> list[str]:
    """The compiler's command line, without its output."""
    sources = [str(path) for path in sorted(HERE.glob("*.c"))]
    python = f'-DPYTHON="{sys.executable}"'
    return [os.environ.get("CC", "gcc"), python, *WARNINGS, *HARDENING, *FREESTANDING, *sources]


def is_current(output: Path) -> bool:
    """Whether ``output`` exists and no source is newer."""
    sources = [*HERE.glob("*.c"), *HERE.glob("*.h"), Path(__file__)]
    return output.exists() and output.stat().st_mtime >= max(path.stat().st_mtime for path in sources)


def build() -> None:
    """Compile what is out of date, and in a virtual environment install the command line.

    Raises PrerequisiteError without a compiler, TestbedError when it fails.
    """
    if not is_current(BINARY):
        _compile()
    if sys.prefix != sys.base_prefix and not (COMMAND.is_symlink() and COMMAND.resolve() == BINARY):
        COMMAND.unlink(missing_ok=True)
        COMMAND.symlink_to(BINARY)


def _compile() -> None:
    try:
        with partial(BINARY) as unfinished:
            subprocess.run([*command(), "-o", str(unfinished)], check=True)
    except FileNotFoundError as error:
        raise PrerequisiteError(f"compile {BINARY.name}: {error}", "install gcc") from error
    except subprocess.CalledProcessError as error:
        raise TestbedError(f"compile {BINARY.name}: gcc exited with {error.returncode}") from error


if __name__ == "__main__":
    try:
        build()
    except TestbedError as problem:
        sys.exit(f"error: {problem}")
