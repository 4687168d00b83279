"""docs/architecture.md and SECURITY.md: each file and each function that they name exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE, SECURITY = ROOT / "docs" / "architecture.md", ROOT / "SECURITY.md"
FOLDERS = "benchmarks|commands|docs|reports|runtime|scenarios|testbed|tests|vm_images"
# A path with a folder of ours, or tasks.py; then, after a colon, what is in it.
NAMED = re.compile(rf"(?<![\w./-])((?:{FOLDERS})/[\w./-]*\w|tasks\.py)(?::([A-Za-z_][\w.]*\w))?")


def named(text: str) -> list[tuple[str, str]]:
    """The files that a page names, each with the function, class or constant in it, or nothing."""
    return sorted(set(NAMED.findall(text)))


def defined(tree: ast.AST, prefix: str = "") -> Iterator[str]:
    """What a module defines: functions, classes with their methods, constants."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name
        elif isinstance(node, ast.ClassDef):
            yield prefix + node.name
            yield from defined(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))


def is_there(path: str, name: str, root: Path = ROOT) -> bool:
    file = root / path
    if not name or not file.is_file():
        return file.exists() and not name
    text = file.read_text()
    if file.suffix == ".py":
        return name in defined(ast.parse(text))
    return re.search(rf"^[\w *]*\b{name}\([^;]*\{{", text, re.MULTILINE) is not None


@pytest.mark.parametrize(("path", "name"), named(PAGE.read_text() + SECURITY.read_text()))
def test_what_the_pages_name_is_there(path: str, name: str) -> None:
    assert is_there(path, name)


def test_the_five_flows_are_drawn() -> None:
    flows = re.findall(r"^## .+?(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert [flow.count("```") for flow in flows] == [2, 2, 2, 2, 2]
    assert all(len(named(flow)) >= 10 for flow in flows)


def test_pictures_fit_on_a_page() -> None:
    assert max(map(len, PAGE.read_text().splitlines())) <= 125


def test_a_name_that_is_not_there_is_seen() -> None:
    assert named("`runtime/lease.py:lease` and testbed/bench.py, tasks.py:bench.") == [
        ("runtime/lease.py", "lease"),
        ("tasks.py", "bench"),
        ("testbed/bench.py", ""),
    ]
    assert is_there("runtime/lease.py", "lease") and is_there("runtime", "")
    assert is_there("runtime/launcher/main.c", "main")
    assert not is_there("runtime/launcher/main.c", "complain_not")
    assert not is_there("runtime/lease.py", "leases_of")
    assert not is_there("runtime/nowhere.py", "") and not is_there("runtime/nowhere.py", "x")
