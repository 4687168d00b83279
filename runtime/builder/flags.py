"""The flags of a Dockerfile's instructions: which there are, and how they are written.

(BuildKit, frontend/dockerfile/parser/split_command.go and frontend/dockerfile/instructions.)
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from runtime.builder.words import SPACES

_BLANK = frozenset(SPACES)
_TRUTH = {"true": "true", "false": "false"}


class Kind(Struct, frozen=True):
    """What a flag takes: a value, or (``boolean``) nothing, ``true`` or ``false``; ``repeated`` flags add up."""

    boolean: bool = False
    repeated: bool = False


_VALUE, _BOOLEAN, _REPEATED = Kind(), Kind(boolean=True), Kind(repeated=True)
_COPIED = {"chown": _VALUE, "chmod": _VALUE, "link": _BOOLEAN, "exclude": _REPEATED}
FLAGS: Mapping[str, Mapping[str, Kind]] = {
    "ADD": {**_COPIED, "checksum": _VALUE, "keep-git-dir": _BOOLEAN, "unpack": _BOOLEAN},
    "COPY": {"from": _VALUE, **_COPIED, "parents": _BOOLEAN},
    "FROM": {"platform": _VALUE},
    "HEALTHCHECK": {
        name: _VALUE for name in ("interval", "timeout", "start-period", "start-interval", "retries")
    },
    "RUN": {"mount": _REPEATED, "network": _VALUE, "security": _VALUE},
}  # fmt: skip


def split_flags(text: str) -> tuple[tuple[str, ...], str]:
    """Return the words at the beginning that start with ``--``, without their quotes, and the text after them.

    A blank that is quoted or follows a backslash belongs to the word. A word that is just ``--`` ends the flags.
    """
    flags: list[str] = []
    index = 0
    while text.startswith("--", index):
        word, index = _first_word(text, index)
        while text[index : index + 1] in _BLANK:
            index += 1
        if word == "--":
            break
        flags.append(word)
    return tuple(flags), text[index:]


def _first_word(text: str, index: int) -> tuple[str, int]:
    """Return the word that begins at ``index``, and the index after it."""
    word: list[str] = []
    quote = ""
    while index < len(text):
        character = text[index]
        if character in SPACES and not quote:
            break
        index += 1
        if character == "\\":
            word.append(text[index : index + 1])
            index += 1
        elif character == quote:
            quote = ""
        elif character in "'\"" and not quote:
            quote = character
        else:
            word.append(character)
    return "".join(word), index


def parse_flags(instruction: str, flags: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return names and values of an instruction's flags. Raises ValueError for one that it does not have, that is there
    twice, or whose value is missing or is no truth value."""
    known = FLAGS.get(instruction, {})
    pairs: list[tuple[str, str]] = []
    seen: set[str] = set()
    for flag in flags:
        name, equals, value = flag.removeprefix("--").partition("=")
        kind = known.get(name)
        if kind is None:
            raise ValueError(f"unknown flag --{name[:40]}; known: {', '.join(f'--{flag}' for flag in known) or 'none'}")
        if name in seen and not kind.repeated:
            raise ValueError(f"--{name} is there twice")
        if kind.boolean:
            value = _TRUTH.get(value.lower() if equals else "true", "")
        if not value:
            raise ValueError(f"--{name} is true or false" if kind.boolean else f"--{name} needs a value")
        seen.add(name)
        pairs.append((name, value))
    return tuple(pairs)
