"""Files of environment variables (``.env``, ``env_file``) in Compose's format, and without any format (``raw``).

The format is that of the Compose documentation, "Syntax for environment files": ``NAME=value`` or ``NAME: value``,
also after ``export``; ``#`` begins a comment at a line's start or after a blank. Values are literal in single quotes;
without quotes or in double ones they are interpolated, and the latter know ``\\n``, ``\\r``, ``\\t`` and ``\\\\``.
Quoted ones may span lines. A name alone takes its value from the environment.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path

from runtime.errors import UsageError
from runtime.files import read_bounded
from testbed.compose.interpolation import InterpolationError, Interpolator
from testbed.yamltree.problems import quote

MOST_BYTES = 2**20
_NAME = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.\[\]-]*)[ \t]*([=:]|$)[ \t]*", re.MULTILINE)
_BLANK = re.compile(r"(?:[ \t\r\f\v]*(?:#[^\n]*)?(?:\n|\Z))+")
_SINGLE = re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL)
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_REST = re.compile(r"[ \t\r]*(?:#[^\n]*)?(?:\n|\Z)")
_BARE = re.compile(r"[^\n]*")
_COMMENT = re.compile(r"[ \t]#.*")
_ESCAPED = re.compile(r"\\([\s\S])")
_ESCAPES: Mapping[str, str] = {"n": "\n", "r": "\r", "t": "\t"}


def read_variables(file: Path, environment: Mapping[str, str], *, raw: bool = False) -> dict[str, str]:
    """Return the variables that a file sets; ``environment`` has those that it may refer to, which come first.

    Raises UsageError, with file and line, when it cannot be read or a line is no variable.
    """
    content = read_bounded(file, MOST_BYTES)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UsageError(f"{file}:{line}: byte 0x{content[error.start]:02x} is not UTF-8") from error
    if "\0" in text:
        raise UsageError(f"{file}:{text[: text.index(chr(0))].count(chr(10)) + 1}: has a NUL character")
    return _read_raw(file, text, environment) if raw else parse_variables(file, text, environment)


def parse_variables(file: Path, text: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables in the text of ``file``. Errors as ``read_variables``."""
    read: dict[str, str] = {}
    known = ChainMap(dict(environment), read)
    at = 0
    while at < len(text):
        if (blank := _BLANK.match(text, at)) and blank.end() > at:
            at = blank.end()
            continue
        while text[at] in " \t":
            at += 1
        name = _NAME.match(text, at)
        if name is None:
            raise _error(file, text, at, f"{quote(text[at:].partition(chr(10))[0])} is no variable", "NAME=value")
        if not name[2]:
            if name[1] in environment:
                read[name[1]] = environment[name[1]]
            at = name.end()
            continue
        try:
            value, at = _read_value(file, text, name.end(), known)
        except InterpolationError as error:
            raise _error(file, text, at, f"{name[1]} {error.problem}", error.expected) from error
        read[name[1]] = value
    return read


def _read_value(file: Path, text: str, at: int, known: Mapping[str, str]) -> tuple[str, int]:
    """Return the value that begins at ``at``, and where the next line does."""
    quoted = (_SINGLE if text.startswith("'", at) else _DOUBLE).match(text, at) if text[at : at + 1] in "'\"" else None
    if text[at : at + 1] in ("'", '"'):
        if quoted is None:
            raise _error(file, text, at, f"a quotation mark without its end: {quote(text[at : at + 30])}")
        rest = _REST.match(text, quoted.end())
        if rest is None:
            raise _error(file, text, quoted.end(), "something after the quotation mark", "a comment or nothing")
        if text[at] == "'":
            return quoted[1].replace("\\'", "'"), rest.end()
        value = _ESCAPED.sub(lambda match: _unescape(match[1]), quoted[1])
        return Interpolator(known).interpolate(value), rest.end()
    bare = _BARE.match(text, at)
    assert bare is not None
    value = "" if bare[0].startswith("#") else _COMMENT.sub("", bare[0]).strip()
    return Interpolator(known).interpolate(value), bare.end() + 1


def _unescape(character: str) -> str:
    if character == "$":
        return "$$"
    return _ESCAPES.get(character, character if character in "\\\"'" else "\\" + character)


def _read_raw(file: Path, text: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a file without format: what follows ``=`` is the value, quotes and all."""
    read: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.lstrip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.partition("=")
        if not name or any(character.isspace() for character in name):
            raise UsageError(f"{file}:{number}: {quote(line)} is no variable", "NAME=value")
        if equals:
            read[name] = value
        elif name in environment:
            read[name] = environment[name]
    return read


def _error(file: Path, text: str, at: int, problem: str, hint: str = "") -> UsageError:
    return UsageError(f"{file}:{text.count(chr(10), 0, at) + 1}: {problem}", hint)
