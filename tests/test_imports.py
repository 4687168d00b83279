"""Imports go one way, and what is slow to import stays off the path that starts a container."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from runtime.launcher.build import NEEDED, PACKAGES
from tests.rooms import PENDING, ROOMS

ROOT = Path(__file__).resolve().parent.parent
# Each may import those before it.
ORDER = ("runtime", "vm_images", "testbed", "reports", "tasks")
# Reports reads run folders; nothing in it can run or change anything, but for the tasks in reports/commands.
REPORTS_MAY = (
    *("testbed.analysis", "testbed.comparisons", "testbed.consolidations", "testbed.fleet", "testbed.footprints"),
    *("testbed.histograms", "testbed.history", "testbed.interference", "testbed.ladder.model", "testbed.pairs"),
    *("testbed.probes.model", "testbed.published", "testbed.rungs"),
    *("testbed.ramps", "testbed.repetitions", "testbed.results", "testbed.run_folders", "testbed.runs"),
    *("testbed.statistics", "testbed.timeline", "runtime.errors", "runtime.output"),
)
# Imported inside a function, or at the top of a module that is itself imported inside one.
SLOW = ("pandas", "matplotlib", "scipy", "numpy")
# The command lines are nobody's library.
COMMAND_LINES = ("runtime.oci", "reports.commands")


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


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = frozenset(module_of(path) for path in sources())


def modules_in(tree: ast.AST) -> set[str]:
    """Those of our own modules that are imported, in functions too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in full}
    return found & MODULES


@cache
def modules_of(source: str) -> frozenset[str]:
    """Those of our own modules that a module imports, by its text."""
    return frozenset(modules_in(ast.parse(source)))


def room_of(module: str) -> str:
    """The innermost room that a module is in, or nothing."""
    return max((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), key=len, default="")


def forbidden(module: str, source: str) -> set[str]:
    """What a module of a room imports of its own package though it may not: rooms, and modules that are in none."""
    own = room_of(module)
    package = module.partition(".")[0]
    if not own:
        return set()
    names = {name for name in modules_of(source) if name.startswith(f"{package}.")}
    return {room_of(name) or name for name in names} - {own} - ROOMS[own]


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


def test_the_rooms_have_no_circle() -> None:
    list(TopologicalSorter(ROOMS).static_order())
    assert set().union(*ROOMS.values()) <= ROOMS.keys()


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    module = module_of(path)
    assert {room for room in forbidden(module, path.read_text()) if (module, room) not in PENDING} == set()


def test_every_folder_of_a_package_is_a_room() -> None:
    folders = {module_of(path.parent) for path in sources() if len(path.relative_to(ROOT).parts) == 3}
    assert folders - {*COMMAND_LINES} <= ROOMS.keys() | {"reports.templates"}


def test_a_room_can_be_broken() -> None:
    assert forbidden("testbed.qemu.domain", "def late():\n    from testbed.platforms import vm\n") == {
        "testbed.platforms"
    }
    assert forbidden("testbed.platforms.vm", "import testbed.measures.application\n") == {"testbed.measures"}
    assert forbidden("testbed.host.noise", "from testbed import doctor, sample\n") == {"testbed.doctor"}
    assert forbidden("runtime.cgroups.hierarchy", "from runtime.plan.steps import Write\n") == {"runtime.plan.steps"}
    assert forbidden("runtime.plan.steps", "from runtime.plan import encode\n") == {"runtime.plan"}
    assert forbidden("runtime.launcher", "from runtime.plan.encode import encode\n") == set()


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_the_command_line_is_no_library(path: Path) -> None:
    names = modules_of(path.read_text())
    own = {"runtime": COMMAND_LINES[:1], "tasks.py": COMMAND_LINES[1:]}.get(path.relative_to(ROOT).parts[0], ())
    if not module_of(path).startswith(COMMAND_LINES):
        others = tuple(one for one in COMMAND_LINES if one not in own)
        assert [name for name in names if name.startswith(others)] == []


def test_no_import_is_hidden_in_a_function() -> None:
    """Such an import is for what is slow or optional; none of the experiment's own modules is."""
    for path in sources():
        if path.relative_to(ROOT).parts[0] in ("testbed", "vm_images"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    assert modules_in(node) == set(), f"{relative(path)}:{node.lineno}"


def test_reports_reads_run_folders_only() -> None:
    tasks = (ROOT / "reports/commands").rglob("*.py")
    for path in sorted({*(ROOT / "reports").rglob("*.py")} - {*tasks}):
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


def test_the_tasks_import_late_what_only_one_of_them_needs() -> None:
    """Each of them pays for what is at the top, `./invoke --list` and the completion of a word too."""
    late = ("testbed.analysis", "testbed.scenario.model", "testbed.runs", "testbed.bench", "reports.summary")
    script = f"import sys, tasks; print(*[name for name in {late!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_command_imports_little() -> None:
    """As the client starts an interpreter for ``create`` and ``exec``: what is named here costs milliseconds."""
    costly = ("dataclasses", "inspect", "subprocess", "typing_extensions")
    script = f"""import sys
sys.path[:0] = [{str(ROOT)!r}]
sys.path.append({str(PACKAGES)!r})
import runtime.oci.planner, runtime.oci.execution, runtime.oci.creation, runtime.oci.lifecycle
print(*[name for name in {costly!r} if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_runtime_needs_the_standard_library_and_one_package() -> None:
    allowed = {*sys.stdlib_module_names, "runtime", NEEDED.name}
    for path in sorted((ROOT / "runtime").rglob("*.py")):
        for line, name in imported(ast.parse(path.read_text())):
            where = f"{relative(path)}:{line}: {name}"
            assert name.partition(".")[0] in allowed or (path.name, name) == ("compression.py", "zstandard"), where


def test_who_unpacks_no_zstd_needs_none() -> None:
    """The reference machine has images of its own making only, and not this package."""
    without = "import sys; sys.modules['zstandard'] = None; import"
    script = f"{without} runtime.images.ingest, runtime.builder.build; print('imported')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("imported\n", "")
    broken = subprocess.run([sys.executable, "-c", f"{without} zstandard"], capture_output=True, check=False)
    assert broken.returncode == 1, "else this shows nothing"
