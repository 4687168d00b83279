"""Every step has words, which hold what it acts on."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import fields

from runtime.plan import steps as s
from runtime.plan.explain import describe

_VALUES: dict[Any, Any] = {
    str: "/a/b",
    int: 7,
    bool: True,
    bytes: b"12345678",
    tuple[str, ...]: ("a", "b"),
    tuple[int, ...]: (1, 2),
    tuple[tuple[int, int], ...]: ((0, 3),),
}
_KINDS = [
    kind for kind in vars(s).values() if isinstance(kind, type) and issubclass(kind, s.Step) and kind is not s.Step
]


@pytest.mark.parametrize("kind", _KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_step_is_described(kind: type[s.Step]) -> None:
    values = {field.name: _VALUES[field.type] for field in fields(kind) if field.name != "tolerate"}
    said = describe(kind(**values))
    assert said.strip() == said != ""
    if paths := [name for name, value in values.items() if value == "/a/b" and name in ("path", "source", "target")]:
        assert said.count("/a/b") >= len(paths)


def test_words_are_those_of_the_system_call() -> None:
    assert describe(s.Mkdir("a", 0o1777)) == "mkdir a 1777"
    assert describe(s.Symlink("to", "from")) == "symlink from -> to"
    assert describe(s.KeepCapabilities(True)) == "prctl PR_SET_KEEPCAPS 1"
    assert describe(s.Setsid()) == "setsid"
    assert describe(s.Chdir("/a")) == "chdir /a"
    assert describe(s.Personality(8)) == "personality 0x8"
    assert describe(s.Umask(0o22)) == "umask 0022"
