"""The arguments of an operation: how the launcher gets each of a step's fields, as the field's annotation says.

``str`` is a C string in UTF-8 and ``bytes`` are raw; ``tuple[str, ...]`` is a list of C strings, which comes after all
other strings and whose length is a number after all other numbers; ``bool`` is a number, 0 or 1. Other types carry a
``Number``, a ``String`` or a ``Note`` in ``Annotated``: the names below. A bare ``int`` is refused, as its range is
missing. Modules with classes of steps evaluate their annotations: they have no ``from __future__ import annotations``.
"""

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

from msgspec import Struct


class Number(Struct, frozen=True):
    """An unsigned number from 0 to ``largest``, which its use in C can hold: what is larger would be cut off there, to
    another's number. ``convert`` makes it of the field."""

    largest: int
    convert: Callable[[Any], int] | None = None


class String(Struct, frozen=True):
    """A string: ``convert`` makes its bytes of the field. One that is ``raw`` may hold NUL bytes."""

    convert: Callable[[Any], bytes]
    raw: bool = False


class Note(Struct, frozen=True):
    """For the reader of a plan: the launcher does not get it."""


def text(value: str) -> bytes:
    """A C string. Raises ValueError when it holds a NUL byte."""
    data = value.encode("utf-8", "surrogateescape")
    if b"\0" in data:
        raise ValueError(f"{data!r} holds a NUL byte")
    return data


def _line(value: str) -> bytes:
    return text(value) + b"\n"


def _words(numbers: tuple[int, ...]) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in numbers)


def bits(numbers: tuple[int, ...]) -> bytes:
    """A set of numbers as the kernel takes it: an array of 64-bit words."""
    mask = sum(1 << number for number in set(numbers))
    return mask.to_bytes((mask.bit_length() + 63) // 64 * 8, "little")


def _unsigned(number: int) -> int:
    return number & (1 << 64) - 1


Word = Annotated[int, Number((1 << 32) - 1)]
Long = Annotated[int, Number((1 << 64) - 1)]
Signed = Annotated[int, Number((1 << 64) - 1, _unsigned)]
"""A negative number in two's complement."""
Positive = Annotated[int, Number((1 << 31) - 1)]
"""What C has as an int: a descriptor, a signal, a count."""
Mode = Annotated[int, Number(0o7777)]
Id = Annotated[int, Number((1 << 32) - 2)]
"""Of a user or group: the last one means none."""
Size = Annotated[int, Number((1 << 16) - 1)]
"""Of a terminal, in characters."""
Line = Annotated[str, String(_line)]
"""A C string to which a newline is added."""
Words = Annotated[tuple[int, ...], String(_words, raw=True)]
"""An array of 32-bit numbers."""
Bits = Annotated[tuple[int, ...], String(bits, raw=True)]
Comment = Annotated[str, Note()]

_PLAIN: dict[Any, Number | String] = {bool: Number(1), str: String(text), bytes: String(bytes, raw=True)}


class Layout(Struct, frozen=True):
    """How the fields of one class of steps are encoded: numbers and strings in order, and the lists after them."""

    numbers: tuple[tuple[str, Number], ...]
    strings: tuple[tuple[str, String], ...]
    lists: tuple[str, ...]


@cache
def layout(kind: type) -> Layout:
    """The layout of a class of steps. Raises TypeError for a field of which it does not say how it is encoded."""
    numbers: list[tuple[str, Number]] = []
    strings: list[tuple[str, String]] = []
    lists: list[str] = []
    for name, annotation in kind.__annotations__.items():
        how = _PLAIN.get(annotation) if isinstance(annotation, type) else getattr(annotation, "__metadata__", [None])[0]
        if isinstance(how, Number):
            numbers.append((name, how))
        elif isinstance(how, String):
            strings.append((name, how))
        elif annotation == tuple[str, ...]:
            lists.append(name)
        elif not isinstance(how, Note):
            raise TypeError(f"{kind.__name__}.{name}: {annotation} does not say how it is encoded")
    return Layout(tuple(numbers), tuple(strings), tuple(lists))
