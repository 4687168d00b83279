"""A step of every class, with some value in each of its fields."""

from __future__ import annotations

from typing import Any, get_type_hints

from runtime.plan import steps as s

_VALUES: dict[Any, Any] = {
    str: "/a/b",
    int: 7,
    bool: True,
    bytes: b"12345678",
    tuple[str, ...]: ("a", "b"),
    tuple[int, ...]: (1, 2),
    tuple[tuple[int, int], ...]: ((0, 3),),
}


def step_of(kind: type[s.Step]) -> s.Step:
    """A step of this class."""
    types = get_type_hints(kind)
    return kind(**{name: _VALUES[types[name]] for name in kind.__struct_fields__ if name != "tolerate"})
