"""What `./invoke test` is made of."""

from __future__ import annotations

import pytest
from invoke.exceptions import Exit

from reports.commands import testing


def test_a_test_run_has_two_parts() -> None:
    lint, tests = testing.checks("", "lint"), testing.checks("", "tests")
    assert (*lint, *tests) == testing.checks("", "")
    assert {"ruff check .", "codespell", "mypy"} <= set(lint)
    assert testing.checks("load", "tests") == ("python -m tests.streams --durations=10 -k 'load'",)
    with pytest.raises(Exit, match="test --only everything: there is no such part"):
        testing.test.body(None, only="everything")
