"""Read a Dockerfile's lines, with parser directives, comments, continuations and here-documents, as BuildKit does.

(BuildKit, frontend/dockerfile/parser/parser.go; Docker's "Dockerfile reference", section "Parser directives".)
"""

from __future__ import annotations

import re

from msgspec import Struct
from msgspec.structs import replace

from runtime.builder.flags import split_flags
from runtime.builder.heredocs import Heredoc, find_heredocs
from runtime.builder.words import BLANKS, ESCAPE, SPACES, json_words

_DIRECTIVES = ("escape", "syntax", "check")
_DIRECTIVE_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9]*")
# Bytes that are not UTF-8, decoded by the error handler "surrogateescape".
_UNDECODED = re.compile("[\udc80-\udcff]")
_WITH_HEREDOCS = ("ADD", "COPY", "RUN")


class LineError(ValueError):
    """An error in the line ``number``, counted from 1."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(what)
        self.number = number


class Logical(Struct, frozen=True):
    """An instruction as text, with its first line's ``number`` and the here-documents below it."""

    number: int
    text: str
    heredocs: tuple[Heredoc, ...] = ()


class Lines(Struct, frozen=True):
    """The instructions of a file; ``escape`` is its escape character."""

    escape: str
    logical: tuple[Logical, ...]


def read_lines(text: str) -> Lines:
    """Join continued lines, drop comments and empty lines, and collect here-documents. Raises LineError.

    Lines end at a line feed and at nothing else; carriage returns before it are part of the line's end.
    """
    physical = text.removeprefix("\ufeff").split("\n")
    escape = _escape(physical)
    logical: list[Logical] = []
    index = 0
    while index < len(physical):
        first = index + 1
        line, index = _joined(physical, index, escape)
        if line:
            heredocs, index = _heredocs(physical, index, line, first)
            logical.append(Logical(first, line, heredocs))
    return Lines(escape, tuple(logical))


def _joined(physical: list[str], index: int, escape: str) -> tuple[str, int]:
    """Return the instruction that begins at ``index``, continuations joined, and the index of the line after it."""
    parts: list[str] = []
    while index < len(physical):
        line = physical[index].rstrip("\r")
        index += 1
        stripped = line.lstrip(SPACES)
        if stripped.startswith("#") or not stripped:
            if parts:
                continue  # comments and empty lines do not end a continued instruction
            break
        _check_characters(index, line)
        part = line if parts else stripped
        body = part.rstrip(" \t")
        # Two escape characters at the end are an escaped one.
        continued = body.endswith(escape) and not body.endswith(escape * 2)
        parts.append(body[:-1] if continued else part)
        if not continued:
            break
    return "".join(parts).strip(SPACES), index


def _heredocs(physical: list[str], index: int, line: str, first: int) -> tuple[tuple[Heredoc, ...], int]:
    """Return the here-documents of an instruction, whose content begins at ``index``, and the index after them."""
    found: list[Heredoc] = []
    for heredoc in find_heredocs(line) if "<<" in line and _may_have_heredocs(line) else ():
        begin = index
        while index < len(physical) and not heredoc.ends_at(physical[index].rstrip("\r")):
            index += 1
            _check_characters(index, physical[index - 1])
        if index == len(physical):
            raise LineError(first, f"the here-document {heredoc.name[:40]} is not ended by a line with just its name")
        found.append(replace(heredoc, content="".join(f"{text}\n" for text in physical[begin:index])))
        index += 1
    return tuple(found), index


def _may_have_heredocs(line: str) -> bool:
    """Return whether an instruction is of a kind that has here-documents, perhaps after ONBUILD, and no JSON array."""
    name, *rest = BLANKS.split(line, maxsplit=1)
    if name.upper() == "ONBUILD" and rest:
        name, *rest = BLANKS.split(rest[0], maxsplit=1)
    if name.upper() not in _WITH_HEREDOCS or not rest:
        return False
    try:
        return json_words(split_flags(rest[0])[1]) is None
    except ValueError:  # an array, but not of strings
        return False


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
