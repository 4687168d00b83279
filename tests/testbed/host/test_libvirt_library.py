"""libvirt is quiet on stderr whichever part of the testbed is the first to load it, and its versions are read."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import testbed
from testbed.host.libvirt_library import format_version

PACKAGE = Path(testbed.__file__).parent
# As virlog.h has it: 1 debug, 2 info, 3 warning, 4 error.
ONLY_ERRORS = 4


@pytest.mark.parametrize(
    "first_use",
    [
        "from testbed.host.facts import read_versions; read_versions()",
        "from testbed.host.libvirt_library import read_libvirt_version; read_libvirt_version()",
        "from testbed.qemu.connection import ensure_event_loop; ensure_event_loop()",
    ],
)
def test_it_reports_errors_only(first_use: str) -> None:
    """What it warns of, above all each domain that is root's, would stand between the lines of a run's progress."""
    script = f"{first_use}; import ctypes; print(ctypes.CDLL('libvirt.so.0').virLogGetDefaultPriority())"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert int(done.stdout) == ONLY_ERRORS


def test_nothing_else_loads_it() -> None:
    """Its level is read when it is loaded first, and never again."""
    loading = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import) and any(alias.name == "libvirt" for alias in node.names)
    ]
    assert loading == ["host/libvirt_library.py"]


def test_versions() -> None:
    assert format_version(9_000_000) == "9.0.0"
    assert format_version(11_002_013) == "11.2.13"
