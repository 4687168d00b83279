"""Match names with the patterns of ``.dockerignore`` and COPY, in time proportional to the name's length.

A pattern is a chain of parts. While a name is read, the bits of a number hold the set of parts that may come next. No
choice is ever taken back, so thirty stars cost as much as one. The set after a directory's path is used for all names
in it. The rules are those of Go's path/filepath.Match and, for ``**``, of moby/patternmatcher.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

# More than anybody has written; each part may cost a step for every character of a name.
MOST_WILDCARDS = 64
LONGEST = 4096
WILD = "*?[\\"

Matches = Callable[[str], bool]


class Parts(Struct):
    """The parts of a pattern while it is compiled: ``matches`` has a test of one character for each part, or None.

    The bits of ``stars`` are parts that stay at any character but a slash; those of ``anything`` stay at every
    character. Both kinds may match nothing. ``directories`` are pairs of parts for ``**/``: the first leads to the
    second or to what follows both; the second stays at every character, and is left at a slash.
    """

    matches: list[Matches | None]
    stars: int = 0
    anything: int = 0
    directories: int = 0

    def add(self, matches: Matches | None) -> int:
        """Add a part, and return its bit."""
        self.matches.append(matches)
        return 1 << (len(self.matches) - 1)


class Pattern:
    """A compiled pattern. A set of states is a number; 0 is the set of a name that cannot match any more."""

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
        """Return the states after ``text`` has been read in ``states``."""
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
        """Return whether what has been read matches the whole pattern."""
        return bool(states & self._end)

    def _matches(self, character: str) -> int:
        """Return the parts that ``character`` matches."""
        if character not in self._matching:
            bits = (1 << index for index, part in enumerate(self._parts.matches) if part and part(character))
            self._matching[character] = sum(bits)
        return self._matching[character]

    def _closed(self, states: int) -> int:
        """Return ``states`` and those that can be reached from them through parts that match nothing."""
        while True:
            entered = states & self._parts.directories
            more = states | (states & self._skipped) << 1 | entered << 1 | entered << 2
            if more == states:
                return states
            states = more


def literal_folder(path: str) -> str | None:
    """Return the directory, "" for the root, below which a path's first wildcard is; None for a path without one."""
    names = path.split("/")
    for index, name in enumerate(names):
        if any(wild in name for wild in WILD):
            return "/".join(names[:index])
    return None


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
    """Add ``**``, which ``rest`` follows: it matches any number of directories, or at the end anything at all."""
    at_end = rest in ("", "/")
    # This is not documented, but `**.md` and the like work so there: they match what ends in it.
    ending = leading and not rest.startswith("/") and not any(wild in rest for wild in (*WILD, "]"))
    if at_end or ending:
        parts.anything |= parts.add(None)
    else:
        parts.directories |= parts.add(None)
        parts.add(None)


def _character_class(text: str, index: int) -> tuple[Matches, int]:
    """Return the test of a class whose content begins at ``index``, and the index of the text after it."""
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
