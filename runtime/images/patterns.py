"""Patterns of names, as ``.dockerignore`` and COPY have them, matched in time that grows as the name does.

A pattern is a chain of parts, and what is kept while a name is read is the set of parts that may come next, as the
bits of a number: no choice is ever taken back, so thirty stars cost what one costs. The set after a directory's
path serves all names in it. The rules are Go's path/filepath.Match and, for ``**``, moby/patternmatcher.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

# So many that nobody has written more; each may cost a step for every character of a name.
MOST_WILDCARDS = 64
LONGEST = 4096
WILD = "*?[\\"

Matches = Callable[[str], bool]


class Parts(Struct):
    """The parts of a pattern while it is read: ``matches`` has a test of one character for each, or None.

    The bits of ``stars`` are parts that stay at any character but a slash, of ``anything`` at each, and both may be
    passed over. ``directories`` are pairs of parts for ``**/``: the first is passed over, to its second or to what
    follows both; the second stays at every character, and is left at a slash.
    """

    matches: list[Matches | None]
    stars: int = 0
    anything: int = 0
    directories: int = 0

    def add(self, matches: Matches | None) -> int:
        """Add a part; the bit that it is."""
        self.matches.append(matches)
        return 1 << (len(self.matches) - 1)


class Pattern:
    """A compiled pattern. A set of states is a number; 0 is that of a name which cannot match any more."""

    def __init__(self, text: str, spanning: bool = True) -> None:
        """``spanning`` gives ``**`` its meaning. Raises ValueError for a malformed pattern."""
        self._parts = _parse(text, spanning)
        self._matching: dict[str, int] = {}
        self._inside = self._parts.directories << 1
        self._staying = self._parts.anything | self._inside
        self._skipped = self._parts.stars | self._parts.anything
        self._end = 1 << len(self._parts.matches)
        self.start = self._closed(1)

    def after(self, states: int, text: str) -> int:
        """The states after ``text`` has been read in ``states``."""
        for character in text:
            if not states:
                break
            following = (states & self._matches(character)) << 1 | states & self._staying
            if character == "/":
                following |= (states & self._inside) << 1
            else:
                following |= states & self._parts.stars
            states = self._closed(following)
        return states

    def is_match(self, states: int) -> bool:
        """Whether what has been read is all that the pattern asks for."""
        return bool(states & self._end)

    def _matches(self, character: str) -> int:
        """The parts that ``character`` matches."""
        if character not in self._matching:
            bits = (1 << index for index, part in enumerate(self._parts.matches) if part and part(character))
            self._matching[character] = sum(bits)
        return self._matching[character]

    def _closed(self, states: int) -> int:
        """``states`` with those that are reached by passing over parts that may be empty."""
        while True:
            entered = states & self._parts.directories
            more = states | (states & self._skipped) << 1 | entered << 1 | entered << 2
            if more == states:
                return states
            states = more


def _parse(text: str, spanning: bool) -> Parts:
    if len(text) > LONGEST:
        raise ValueError(f"a pattern of more than {LONGEST} characters")
    parts = Parts([])
    index = wildcards = 0
    while index < len(text):
        begin, character = index, text[index]
        index += 1
        if character == "*" and spanning and text.startswith("*", index):
            index += 2 if text.startswith("/", index + 1) else 1
            _span(parts, begin == 0, text[begin + 2 :])
        elif character == "*":
            parts.stars |= parts.add(None)
            while not spanning and text.startswith("*", index):
                index += 1
        elif character == "?":
            parts.add(lambda other: other != "/")
        elif character == "[":
            matches, index = _character_class(text, index)
            parts.add(matches)
        else:
            if character == "\\":
                if index == len(text):
                    raise ValueError("it ends in a backslash, which escapes nothing")
                character = text[index]
                index += 1
            parts.add(character.__eq__)
            continue
        wildcards += 1
    if wildcards > MOST_WILDCARDS:
        raise ValueError(f"a pattern of more than {MOST_WILDCARDS} wild cards")
    return parts


def _span(parts: Parts, leading: bool, rest: str) -> None:
    """Add ``**``, which is followed by ``rest``: any number of directories, or anything at all at the end."""
    at_end = rest in ("", "/")
    # Not documented, but so do `**.md` and its like work there: what ends in it.
    ending = leading and not rest.startswith("/") and not any(wild in rest for wild in (*WILD, "]"))
    if at_end or ending:
        parts.anything |= parts.add(None)
    else:
        parts.directories |= parts.add(None)
        parts.add(None)


def _character_class(text: str, index: int) -> tuple[Matches, int]:
    """What a class matches, whose content begins at ``index``, and where the text goes on after it."""
    negated = text.startswith("^", index)
    index += 1 if negated else 0
    ranges: list[tuple[str, str]] = []
    while not ranges or not text.startswith("]", index):
        low, index = _class_character(text, index)
        high = low
        if text.startswith("-", index):
            high, index = _class_character(text, index + 1)
        ranges.append((low, high))
    return lambda other: any(low <= other <= high for low, high in ranges) != negated, index + 1


def _class_character(text: str, index: int) -> tuple[str, int]:
    escaped = text.startswith("\\", index)
    index += 1 if escaped else 0
    character = text[index : index + 1]
    if not character or (character in "-]" and not escaped) or index + 1 == len(text):
        raise ValueError("a character class [...] that is malformed or not closed")
    return character, index + 1
