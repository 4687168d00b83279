"""Read a Dockerfile's lines, with parser directives, comments and continuations, as BuildKit's parser does.

(BuildKit, frontend/dockerfile/parser/parser.go; Docker's "Dockerfile reference", section "Parser directives".)
"""

from __future__ import annotations

import re

from msgspec import Struct

from runtime.images.words import ESCAPE, SPACES

_DIRECTIVES = ("escape", "syntax", "check")
_DIRECTIVE_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9]*")
# Bytes that are not UTF-8, decoded by the error handler "surrogateescape".
_UNDECODED = re.compile("[\udc80-\udcff]")


class LineError(ValueError):
    """An error in the line ``number``, counted from 1."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(what)
        self.number = number


class Lines(Struct, frozen=True):
    """The instructions of a file as text, each with its first line's number; ``escape`` is its escape character."""

    escape: str
    logical: tuple[tuple[int, str], ...]


def read_lines(text: str) -> Lines:
    """Join continued lines, and drop comments and empty lines. Raises LineError.

    Lines end at a line feed and at nothing else; carriage returns before it are part of the line's end.
    """
    physical = [line.rstrip("\r") for line in text.removeprefix("\ufeff").split("\n")]
    escape = _escape(physical)
    logical: list[tuple[int, str]] = []
    pending: list[str] = []
    first, continued = 0, False
    for number, line in enumerate(physical, start=1):
        stripped = line.lstrip(SPACES)
        # Comments and empty lines do not end a continued instruction.
        if stripped.startswith("#") or not stripped:
            continue
        _check_characters(number, line)
        first = first if continued else number
        part = line if continued else stripped
        body = part.rstrip(" \t")
        # Two escape characters at the end are an escaped one.
        continued = body.endswith(escape) and not body.endswith(escape * 2)
        pending.append(body[:-1] if continued else part)
        if not continued:
            logical.append((first, "".join(pending).strip(SPACES)))
            pending = []
    if pending:
        logical.append((first, "".join(pending).strip(SPACES)))
    return Lines(escape, tuple((number, line) for number, line in logical if line))


def _escape(physical: list[str]) -> str:
    """Return the file's escape character. Directives precede everything else, even comments and empty lines."""
    seen: dict[str, str] = {}
    for number, line in enumerate(physical, start=1):
        comment = line.lstrip(SPACES)
        name, equals, value = comment[1:].partition("=")
        name, value = name.strip(SPACES), value.strip(SPACES)
        if not comment.startswith("#") or not equals or not value or not _DIRECTIVE_NAME.fullmatch(name):
            break
        name = name.lower()
        if name not in _DIRECTIVES:
            break
        if name in seen:
            raise LineError(number, f"the parser directive {name} is there twice")
        seen[name] = value
        if name == "escape" and value not in ("\\", "`"):
            raise LineError(number, f"the parser directive escape is {value[:20]!r}; it can be \\ or `")
    return seen.get("escape", ESCAPE)


def _check_characters(number: int, line: str) -> None:
    """Raise LineError for characters that a process cannot be given, which only comments may hold."""
    undecoded = _UNDECODED.search(line)
    if undecoded:
        raise LineError(number, f"byte 0x{ord(undecoded[0]) - 0xDC00:02x} is not UTF-8")
    if "\0" in line:
        raise LineError(number, "a NUL character")
