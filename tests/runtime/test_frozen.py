"""Frozen dataclasses without generated code are what those of the standard library are."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any, ClassVar

import pytest

from runtime import frozen


@frozen.dataclass(frozen=True)
class Base:
    op: ClassVar[int] = 7
    tolerate: tuple[int, ...] = frozen.field(default=(), kw_only=True)


@frozen.dataclass(frozen=True)
class Point(Base):
    x: int
    y: int = 2
    more: tuple[str, ...] = frozen.field(default_factory=tuple, repr=False, metadata={"json": "mehr"})


@dataclasses.dataclass(frozen=True)
class StandardBase:
    op: ClassVar[int] = 7
    tolerate: tuple[int, ...] = dataclasses.field(default=(), kw_only=True)


@dataclasses.dataclass(frozen=True)
class Standard(StandardBase):
    x: int
    y: int = 2
    more: tuple[str, ...] = dataclasses.field(default_factory=tuple, repr=False, metadata={"json": "mehr"})


def test_it_reads_like_the_standard_one() -> None:
    ours, theirs = Point(1, more=("a",), tolerate=(3,)), Standard(1, more=("a",), tolerate=(3,))
    assert repr(ours) == repr(theirs).replace("Standard", "Point")
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs) and list(frozen.as_dict(ours)) == list(vars(theirs))
    names = [(f.name, f.default, f.kw_only, f.repr, f.metadata) for f in dataclasses.fields(theirs)]
    assert [(f.name, f.default, f.kw_only, f.repr, f.metadata) for f in dataclasses.fields(ours)] == names
    assert Point.__match_args__ == Standard.__match_args__ and Point.y == 2 and dataclasses.is_dataclass(ours)


def test_equal_ones_are_equal_and_hash_alike() -> None:
    assert Point(1) == Point(1, 2, ()) and hash(Point(1)) == hash(Point(1, 2))
    assert Point(1) != Point(2) and Point(1).__eq__(Standard(1)) is NotImplemented
    assert copy.deepcopy(Point(5)) == Point(5) == pickle.loads(pickle.dumps(Point(5)))


def test_a_copy_with_changes() -> None:
    for replace in (frozen.replace, dataclasses.replace):
        assert replace(Point(1, 3, tolerate=(4,)), x=2) == Point(2, 3, tolerate=(4,))


@pytest.mark.parametrize("wrong", [((), {}), ((1, 2, (), 3), {}), ((1,), {"x": 2}), ((1,), {"z": 2})])
def test_wrong_arguments_are_refused(wrong: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
    for kind in (Point, Standard):
        with pytest.raises(TypeError):
            kind(*wrong[0], **wrong[1])


def test_it_does_not_change() -> None:
    point: Any = Point(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.x = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point.x
    assert point.x == 1
