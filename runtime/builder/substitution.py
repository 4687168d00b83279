"""Remove and replace parts of a value by a shell's pattern, as ``${NAME#pattern}`` and its like do in a Dockerfile.

In a pattern ``*`` matches any text, ``?`` any character, and a backslash makes ``*``, ``?``, ``}``, ``/`` and itself
ordinary (Docker's "Dockerfile reference", section "Environment replacement"; POSIX shell, "Patterns matching a single
character" and "multiple characters"). A pattern is cut at its stars, and its pieces are looked for one after the other,
so that the number of stars does not multiply the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from msgspec import Struct

# More than anybody has written. Each character of a piece with question marks may be compared at each place of a value.
LONGEST_PATTERN = 1024
_SPECIAL = "*?\\"


class _Piece(Struct, frozen=True):
    """A part of a pattern without stars: literal characters, and None for a question mark."""

    characters: tuple[str | None, ...]

    @property
    def expression(self) -> re.Pattern[str]:
        return _compiled(self.characters)

    def backwards(self) -> _Piece:
        return _Piece(self.characters[::-1])

    def first(self, value: str, begin: int) -> int:
        """Return where the piece occurs first from ``begin`` on, or -1."""
        match = self.expression.search(value, begin)
        return match.start() if match else -1

    def last(self, value: str, begin: int) -> int:
        """Return where it occurs last from ``begin`` on, or -1."""
        if None not in self.characters:
            return value.rfind("".join(map(str, self.characters)), begin)
        match = self.backwards().expression.search(value[begin:][::-1])
        return len(value) - match.end() if match else -1


@lru_cache(maxsize=256)
def _compiled(characters: tuple[str | None, ...]) -> re.Pattern[str]:
    return re.compile("".join("." if one is None else re.escape(one) for one in characters), re.DOTALL)


def _pieces(pattern: str) -> tuple[_Piece, ...]:
    """Cut a pattern at its stars. Raises ValueError for one that is too long or escapes anything else."""
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"a pattern of more than {LONGEST_PATTERN} characters")
    pieces: list[list[str | None]] = [[]]
    characters = iter(pattern)
    for character in characters:
        if character == "*":
            pieces.append([])
        elif character == "?":
            pieces[-1].append(None)
        elif character == "\\":
            pieces[-1].append(_escaped(characters))
        else:
            pieces[-1].append(character)
    return tuple(_Piece(tuple(piece)) for piece in pieces)


def _escaped(characters: Iterator[str]) -> str:
    character = next(characters, "")
    if not character or character not in f"{_SPECIAL}}}/":
        raise ValueError(f"a pattern has \\{character}, and a backslash escapes only one of * ? \\ }} /")
    return character


def _span(pieces: tuple[_Piece, ...], value: str, begin: int, anchored: bool, longest: bool) -> tuple[int, int] | None:
    """Return where the pieces match: from ``begin`` on, exactly there if ``anchored``, up to the last or first end."""
    first, *rest = pieces
    at = begin if anchored else first.first(value, begin)
    if at < 0 or (anchored and not first.expression.match(value, begin)):
        return None
    start, end = at, at + len(first.characters)
    for number, piece in enumerate(rest, start=1):
        is_last = number == len(rest)
        at = piece.last(value, end) if is_last and longest else piece.first(value, end)
        if at < 0:
            return None
        end = at + len(piece.characters)
    return start, end


def remove_prefix(pattern: str, value: str, longest: bool) -> str:
    """Return ``value`` without the shortest, or longest, beginning that the pattern matches. Raises ValueError."""
    span = _span(_pieces(pattern), value, 0, anchored=True, longest=longest)
    return value[span[1] :] if span else value


def remove_suffix(pattern: str, value: str, longest: bool) -> str:
    """Return ``value`` without the shortest, or longest, end that the pattern matches. Raises ValueError."""
    pieces = tuple(piece.backwards() for piece in reversed(_pieces(pattern)))
    span = _span(pieces, value[::-1], 0, anchored=True, longest=longest)
    return value[: len(value) - span[1]] if span else value


def substitute(pattern: str, value: str, replacement: str, every: bool) -> Iterator[str]:
    """Yield the parts of ``value`` with ``replacement`` for the first match of the pattern, or for every one.

    A match begins as early as it can, and is as long as it can be. An empty pattern matches once, at the beginning.
    Raises ValueError.
    """
    pieces = _pieces(pattern)
    begin = 0
    while span := _span(pieces, value, begin, anchored=False, longest=True):
        yield value[begin : span[0]]
        yield replacement
        begin = span[1]
        if not every or span[0] == span[1] or begin == len(value):
            break
    yield value[begin:]
