"""The table of operations is written once: a step's class, and the C function that performs it."""

import re
import subprocess
from pathlib import Path

import pytest

from runtime.launcher.build import FOLDERS, HERE, INCLUDES, WARNINGS, sources
from runtime.launcher.header import c_name, operations_header, table_header
from runtime.plan import steps as s
from runtime.plan.steps.arguments import Bits, Comment, Mode, layout

WRITTEN = [path for folder in FOLDERS for path in folder.glob("*.[ch]")]
# What the reader of plans has to know of single operations.
NAMED = {"OP_EXEC", "OP_FORK", "OP_END"}
PLAN = HERE.parent / "plan"


class PretendToSleep(s.Step, frozen=True):
    """An operation that there is not: only a class."""

    words = "sleep {mode} {path}"

    path: str
    mode: Mode
    processors: Bits
    names: tuple[str, ...]
    what: Comment = ""


@pytest.mark.parametrize("kind", s.OPERATIONS, ids=lambda kind: kind.__name__)
def test_an_operation_stands_in_two_places(kind: type[s.Step]) -> None:
    """Its class, and one function; else only those who make plans name it."""
    function = re.compile(rf"^int perform_{c_name(kind)}\(const struct step \*s\) {{", re.MULTILINE)
    assert [len(function.findall(path.read_text())) for path in WRITTEN].count(1) == 1
    for path in (HERE / "header.py", HERE / "build.py", PLAN / "encode.py", PLAN / "steps" / "__init__.py"):
        code = path.read_text()
        assert not re.search(rf"\b{kind.__name__}\b", re.sub(r'""".*?"""', "", code, flags=re.DOTALL)), path
    assert kind.words or kind.describe is not s.Step.describe
    assert kind.purpose.endswith(".") or kind.reason is not s.Step.reason


def test_no_other_code_names_an_operation() -> None:
    names = {name for path in WRITTEN for name in re.findall(r"\bOP_\w+", path.read_text())}
    assert names == NAMED


def test_a_class_is_all_that_the_header_needs() -> None:
    header, table = (made([*s.OPERATIONS, PretendToSleep]) for made in (operations_header, table_header))
    assert "int perform_pretend_to_sleep(const struct step *s);" in header
    assert "case OP_PRETEND_TO_SLEEP: return perform_pretend_to_sleep(s);" in header
    assert "uint64_t mode, names_count; } pretend_to_sleep;" in header and "*path, *processors;" in header
    assert '[OP_PRETEND_TO_SLEEP] = {"sleep", 2, 1, 2, 1, {' in table
    assert "what" not in header.split("pretend_to_sleep;")[0].splitlines()[-1]


def test_arguments_lie_where_the_reader_puts_them(tmp_path: Path) -> None:
    """Every operation's own names are the arrays' elements, in order."""
    checks = []
    for kind in s.OPERATIONS:
        name = c_name(kind)
        for member, place in _places(kind):
            checks.append(
                f'_Static_assert(offsetof(struct step, {name}.{member}) == offsetof(struct step, {place}), "");'
            )
    assert len(checks) > 100
    source = tmp_path / "checks.c"
    source.write_text("\n".join(["#include <stddef.h>", '#include "operations.h"', *checks, ""]))
    sources()  # the header is there
    subprocess.run(["gcc", *WARNINGS, *INCLUDES, "-fsyntax-only", str(source)], check=True)


def _places(kind: type[s.Step]) -> list[tuple[str, str]]:
    form = layout(kind)
    strings = [name for name, _ in form.strings]
    numbers = [*(name for name, _ in form.numbers), *(f"{name}_count" for name in form.lists)]
    places = [(name, f"string[{at}]") for at, name in enumerate(strings)]
    places += [(f"{name}_size", f"size[{at}]") for at, name in enumerate(strings)]
    return places + [(name, f"number[{at}]") for at, name in enumerate(numbers)]
