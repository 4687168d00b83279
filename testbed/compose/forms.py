"""What several keys of compose files share: pairs, lists of words, commands, durations, sizes."""

from __future__ import annotations

import re
import shlex

from msgspec import Struct

from testbed.yamltree.problems import quote
from testbed.yamltree.values import Value

# More than one host has.
MOST_MEMORY_BYTES = 64 * 2**40
_BYTES = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,15})?) ?(?:([kmgt])i?)?b?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?|\.[0-9]{1,9})(h|ms|m|us|µs|ns|s|d|w)")
_SECONDS = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_SECONDS |= {"ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_NAME = re.compile(r"[^=\0]+")
_SIZE = "a size such as 256M, 1.5G or 1048576, at most 64T"


class Pair(Struct, frozen=True):
    """A name with its text, None where the file gives none, and where both stand."""

    name: str
    text: str | None
    value: Value


def read_pairs(value: Value, separators: str = "=") -> list[Pair]:
    """Return names and texts, written as a mapping or as a list of ``NAME=value``."""
    if value.is_null:
        return []
    pairs = [_split_pair(item, separators) for item in value.items()] if value.is_list else _table_pairs(value)
    for pair in pairs:
        if not _NAME.fullmatch(pair.name):
            pair.value.report(f"{quote(pair.name)} is no name", "NAME=value")
    return list({pair.name: pair for pair in pairs}.values())


def _table_pairs(value: Value) -> list[Pair]:
    return [Pair(name, None if entry.is_null else entry.printed(), entry) for name, entry in value.entries().items()]


def _split_pair(item: Value, separators: str) -> Pair:
    text = item.printed("NAME=value")
    for separator in separators:
        name, found, rest = text.partition(separator)
        if found:
            return Pair(name.strip() if separator != "=" else name, rest, item)
    return Pair(text, None, item)


def read_texts(value: Value, expected: str = "text or a list of it") -> tuple[str, ...]:
    """Return a list of texts, or the only one, which may be empty."""
    if value.is_null:
        return ()
    if value.is_text:
        text = value.printed(expected)
        return (text,) if text else ()
    return tuple(item.printed(expected) for item in value.items())


def read_words(value: Value) -> tuple[str, ...] | None:
    """Return a command: a list, or a line split as a shell would split it, but not run by one; None for null, which is
    the image's own."""
    if value.is_null:
        return None
    if value.is_list:
        return tuple(item.printed("a word of the command") for item in value.items())
    try:
        return tuple(shlex.split(value.text("a list of words")))
    except ValueError as error:
        value.report(f"cannot be split into words: {error}", "a list of words")
        return None


def parse_duration(text: str) -> float:
    """Return the seconds that Compose's notation means (``1m30s``, ``1.5h``, ``100ms``). Raises ValueError."""
    if text == "0":
        return 0.0
    at, seconds = 0, 0.0
    while match := _DURATION.match(text, at):
        seconds += float(match[1]) * _SECONDS[match[2]]
        at = match.end()
    if at != len(text) or not text:
        raise ValueError(text)
    return seconds


def read_duration(value: Value) -> float:
    """Return seconds; 0 if it is wrong."""
    written = value.text("a duration such as 1m30s")
    try:
        return parse_duration(written)
    except ValueError:
        value.report(f"is {quote(written)}", "a duration with units, such as 1m30s")
        return 0.0


def parse_bytes(text: str) -> int:
    """Return the bytes that Compose's notation means (``256M``, ``1.5gb``, ``64kib``, ``1024``). Raises ValueError.

    Units are powers of 1024 with or without the ``i``, as in Compose's own reader (docker/go-units, RAMInBytes).
    """
    match = _BYTES.fullmatch(text)
    if match is None:
        raise ValueError(text)
    power = " kmgt".index((match[2] or " ").lower())
    return int(float(match[1]) * 1024**power)


def read_bytes(value: Value) -> int:
    """Return a size; 1 if it is wrong."""
    written = value.text("a size such as 256M")
    try:
        size = parse_bytes(written)
    except ValueError:
        size = 0
    if not 1 <= size <= MOST_MEMORY_BYTES:
        value.report(f"is {quote(written)}", _SIZE)
        return 1
    return size
