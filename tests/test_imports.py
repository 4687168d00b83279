"""Imports go one way, and what is slow to import stays off the path that starts a container."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.launcher.build import NEEDED, PACKAGES

ROOT = Path(__file__).resolve().parent.parent
# Each may import those before it.
ORDER = ("runtime", "vm_images", "testbed", "reports", "tasks")
# Reports reads run folders; nothing in it can run or change anything.
REPORTS_MAY = ("testbed.results", "testbed.analysis", "testbed.intervals", "runtime.errors")
# Imported inside a function, or at the top of a module that is itself imported inside one.
SLOW = ("pandas", "matplotlib", "scipy", "numpy")


def sources() -> list[Path]:
    return [ROOT / "tasks.py", *(path for name in ORDER[:-1] for path in sorted((ROOT / name).rglob("*.py")))]


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that is imported, in functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def against_the_order(package: str, source: str) -> list[str]:
    """The imports of a module of ``package`` that run against the order, as ``line: name``."""
    later = ORDER[ORDER.index(package) + 1 :]
    return [
        f"{line}: {name}"
        for line, name in imported(ast.parse(source))
        if name.startswith(".") or name.partition(".")[0] in (*later, "tests", "benchmarks")
    ]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_no_module_imports_what_comes_after_it(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert against_the_order(package, path.read_text()) == []


def test_the_order_can_be_broken() -> None:
    assert against_the_order("runtime", "import os\nfrom testbed import load\n") == [
        "2: testbed",
        "2: testbed.load",
    ]
    assert against_the_order("vm_images", "def late():\n    import reports.figures\n") == ["2: reports.figures"]
    assert against_the_order("testbed", "from . import sample\n")
    assert against_the_order("testbed", "import vm_images, runtime.spec\n") == []


def test_reports_reads_run_folders_only() -> None:
    for path in sorted((ROOT / "reports").rglob("*.py")):
        for line, name in imported(ast.parse(path.read_text())):
            if name.partition(".")[0] in ORDER[:3] and name != "testbed":
                assert name.startswith(REPORTS_MAY), f"{relative(path)}:{line}: {name}"


def test_scenarios_are_data() -> None:
    assert sorted((ROOT / "scenarios").rglob("*.py")) == []


@pytest.mark.parametrize("module", ["runtime.container", "runtime.oci.cli", "testbed.bench", "testbed.platforms.vm"])
def test_what_is_slow_to_import_comes_late(module: str) -> None:
    script = f"import sys, {module}; print(*[name for name in {SLOW!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_command_imports_little() -> None:
    """As the launcher starts the interpreter for ``create`` and ``exec``: what is named here costs milliseconds."""
    costly = ("argparse", "dataclasses", "inspect", "subprocess", "typing_extensions")
    script = f"""import sys
sys.path[:0] = [{str(ROOT)!r}]
sys.path.append({str(PACKAGES)!r})
import runtime.oci.cli, runtime.oci.lifecycle
print(*[name for name in {costly!r} if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_runtime_needs_the_standard_library_and_one_package() -> None:
    allowed = {*sys.stdlib_module_names, "runtime", NEEDED.name}
    for path in sorted((ROOT / "runtime").rglob("*.py")):
        for line, name in imported(ast.parse(path.read_text())):
            assert name.partition(".")[0] in allowed, f"{relative(path)}:{line}: {name}"
