"""libvirt is loaded in one place only: how loud it is is read when it is loaded first, and never again."""

from __future__ import annotations

import ast
from pathlib import Path

import testbed

PACKAGE = Path(testbed.__file__).parent


def test_nothing_else_loads_it() -> None:
    loading = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import) and any(alias.name == "libvirt" for alias in node.names)
    ]
    assert loading == ["host/libvirt_library.py"]
