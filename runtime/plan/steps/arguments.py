"""Read from the annotations of a step's fields how the launcher gets each field as an argument of the operation.

``str`` is a C string in UTF-8 and ``bytes`` are raw; ``tuple[str, ...]`` is a list of C strings, which comes after all
other strings and whose length is a number after all other numbers; ``bool`` is a number, 0 or 1. Other types carry a
``Number``, a ``String`` or a ``Note`` in ``Annotated``, as the names below do. A bare ``int`` is refused, as its range
is missing. Modules that define steps need evaluated annotations, so they have no ``from __future__ import
annotations``.
"""

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

from msgspec import Struct


class Number(Struct, frozen=True):
    """Marks an unsigned number from 0 to ``largest``, the most that its type in C can hold: a larger one would be
    truncated there to a different number. ``convert`` makes the number from the field."""

    largest: int
    convert: Callable[[Any], int] | None = None


class String(Struct, frozen=True):
    """Marks a string, whose bytes ``convert`` makes from the field. A ``raw`` string may hold NUL bytes."""

    convert: Callable[[Any], bytes]
    raw: bool = False


class Note(Struct, frozen=True):
    """Marks a field that is for the reader of a plan; the launcher does not get it."""


def text(value: str) -> bytes:
    """Encode a C string. Raises ValueError when it holds a NUL byte."""
    data = value.encode("utf-8", "surrogateescape")
    if b"\0" in data:
        raise ValueError(f"{data!r} holds a NUL byte")
    return data


def _line(value: str) -> bytes:
    return text(value) + b"\n"


def _words(numbers: tuple[int, ...]) -> bytes:
    return b"".join(number.to_bytes(4, "little") for number in numbers)


def bits(numbers: tuple[int, ...]) -> bytes:
    """Encode a set of numbers as the kernel takes it, as a bit mask in an array of 64-bit words."""
    mask = sum(1 << number for number in set(numbers))
    return mask.to_bytes((mask.bit_length() + 63) // 64 * 8, "little")


def _unsigned(number: int) -> int:
    return number & (1 << 64) - 1


Word = Annotated[int, Number((1 << 32) - 1)]
Long = Annotated[int, Number((1 << 64) - 1)]
Signed = Annotated[int, Number((1 << 64) - 1, _unsigned)]
"""Signed numbers are encoded in two's complement."""
Positive = Annotated[int, Number((1 << 31) - 1)]
"""Positive numbers fit a C int: they are descriptors, signals and counts."""
Mode = Annotated[int, Number(0o7777)]
Id = Annotated[int, Number((1 << 32) - 2)]
"""An Id is that of a user or group. The largest u32 is excluded, as it means none."""
Size = Annotated[int, Number((1 << 16) - 1)]
"""A Size is a terminal's, in characters."""
Line = Annotated[str, String(_line)]
"""A Line is a C string to which a newline is added."""
Words = Annotated[tuple[int, ...], String(_words, raw=True)]
"""Words are an array of 32-bit numbers."""
Bits = Annotated[tuple[int, ...], String(bits, raw=True)]
Comment = Annotated[str, Note()]

_PLAIN: dict[Any, Number | String] = {bool: Number(1), str: String(text), bytes: String(bytes, raw=True)}


class Layout(Struct, frozen=True):
    """Describes how the fields of one class of steps are encoded: numbers and strings in order, then the lists."""

    numbers: tuple[tuple[str, Number], ...]
    strings: tuple[tuple[str, String], ...]
    lists: tuple[str, ...]


@cache
def layout(kind: type) -> Layout:
    """Return the layout of a class of steps. Raises TypeError for a field whose annotation does not say how it is
    encoded."""
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
