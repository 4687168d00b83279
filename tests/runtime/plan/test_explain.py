"""Every step has words, which hold what it acts on."""

from __future__ import annotations

import pytest
from msgspec.structs import asdict

from runtime.plan import steps as s
from tests.runtime.plan.any_step import step_of


@pytest.mark.parametrize("kind", s.OPERATIONS, ids=lambda kind: kind.__name__)
def test_every_kind_of_step_is_described(kind: type[s.Step]) -> None:
    step = step_of(kind)
    values, said = asdict(step), step.describe()
    assert said.strip() == said != ""
    if paths := [name for name, value in values.items() if value == "/a/b" and name in ("path", "source", "target")]:
        assert said.count("/a/b") >= len(paths)


def test_words_are_those_of_the_system_call() -> None:
    assert s.Mkdir("a", 0o1777).describe() == "mkdir a 1777"
    assert s.Symlink("to", "from").describe() == "symlink from -> to"
    assert s.KeepCapabilities(True).describe() == "prctl PR_SET_KEEPCAPS 1"
    assert s.Setsid().describe() == "setsid"
    assert s.Chdir("/a").describe() == "chdir /a"
    assert s.Personality(8).describe() == "personality 0x8"
    assert s.Umask(0o22).describe() == "umask 0022"
