"""A Dockerfile as data: a list of instructions, checked for form but not yet expanded or executed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.images import words

_CONTINUED = re.compile(r"\\[ \t]*$")
_FLAG = re.compile(r"--([a-z-]+)(?:=(\S*))?(?:\s+|$)")
_HEREDOC = re.compile(r"<<-?[\"']?[A-Za-z_]\w*[\"']?(\s|$)")
_FLAGS_OF = {"COPY": ("chown", "chmod")}


class Instruction(Struct, frozen=True):
    """One instruction.

    ``line`` is where it begins (from 1) and ``text`` what follows its name and flags, continuation lines
    joined. ``words`` are its arguments (of the exec form, or split at blanks), ``pairs`` those of ENV,
    LABEL and ARG, not expanded; a value of None is an ARG without a default. ``exec_form`` says that
    the arguments were a JSON array.
    """

    name: str
    line: int
    text: str
    flags: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str | None], ...] = ()
    exec_form: bool = False

    def __str__(self) -> str:
        flags = "".join(f" --{name}={value}" for name, value in self.flags)
        return f"{self.name}{flags} {self.text}"


class Dockerfile(Struct, frozen=True):
    """A parsed file; errors found later are reported by its ``path`` and an instruction's line."""

    path: Path
    instructions: tuple[Instruction, ...] = field(default=())

    def error(self, line: int, what: str, hint: str = "") -> UsageError:
        """A UsageError that points at ``line`` of this file."""
        return UsageError(f"{self.path}:{line}: {what}", hint)


def read(path: Path) -> Dockerfile:
    """Parse the file at ``path``; UsageError when it cannot be read or understood."""
    try:
        return parse(path.read_text(), path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"read Dockerfile {path}: {error}") from error


def parse(text: str, path: Path = Path("Dockerfile")) -> Dockerfile:
    """Parse the text of a Dockerfile; ``path`` only appears in errors, each a UsageError ``path:line: what``."""
    file = Dockerfile(path)
    instructions = tuple(_instruction(file, line, logical) for line, logical in _logical_lines(text))
    _check_order(file, instructions)
    return Dockerfile(path, instructions)


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """Lines with their continuations, each with its first line's number; no comments, no empty lines."""
    result: list[tuple[int, str]] = []
    pending, first = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        # Comments and empty lines do not end a continued instruction.
        if line.lstrip().startswith("#") or not line.strip():
            continue
        first = first if pending else number
        joined = _CONTINUED.sub("", line)
        pending += line if joined == line else joined
        if joined == line:
            result.append((first, pending.strip()))
            pending = ""
    if pending.strip():
        result.append((first, pending.strip()))
    return result


def _instruction(file: Dockerfile, line: int, logical: str) -> Instruction:
    name, _, rest = logical.partition(" ") if " " in logical else logical.partition("\t")
    name, text = name.upper(), rest.strip()
    if name not in _PARSERS:
        raise file.error(line, f"unknown instruction {name}; known: {', '.join(sorted(_PARSERS))}")
    flags: list[tuple[str, str]] = []
    while match := _FLAG.match(text):
        if match[1] not in _FLAGS_OF.get(name, ()):
            known = ", ".join(f"--{flag}" for flag in _FLAGS_OF.get(name, ())) or "none"
            raise file.error(line, f"{name}: unknown flag --{match[1]}; known: {known}")
        flags.append((match[1], match[2] or ""))
        text = text[match.end() :]
    if not text:
        raise file.error(line, f"{name} needs an argument")
    try:
        return _PARSERS[name](Instruction(name, line, text, tuple(flags)))
    except ValueError as error:
        raise file.error(line, f"{name}: {error}") from error


def _check_order(file: Dockerfile, instructions: tuple[Instruction, ...]) -> None:
    first = next((entry for entry in instructions if entry.name != "ARG"), None)
    if first is None:
        raise file.error(1, "no FROM instruction")
    if first.name != "FROM":
        raise file.error(first.line, f"{first.name} before FROM; only ARG may come first")
    for entry in instructions:
        if entry.name == "FROM" and entry is not first:
            raise file.error(entry.line, "a second FROM: builds of several stages are not supported")


def _json_words(text: str) -> tuple[str, ...] | None:
    """The strings of an exec form, or None when the text is not one: then it is a shell's, as in Docker."""
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return None
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        return None
    return tuple(value)


def _parse_command(entry: Instruction) -> Instruction:
    array = _json_words(entry.text)
    if array is not None:
        if not array and entry.name == "RUN":
            raise ValueError("the array is empty")
        return replace(entry, words=array, exec_form=True)
    if _HEREDOC.search(entry.text) and entry.name == "RUN":
        raise ValueError("here-documents are not supported; use a script and COPY, or &&")
    return replace(entry, words=("/bin/sh", "-c", entry.text))


def _parse_words(entry: Instruction) -> Instruction:
    array = _json_words(entry.text)
    return replace(entry, words=array if array is not None else tuple(entry.text.split()), exec_form=array is not None)


def _parse_copy(entry: Instruction) -> Instruction:
    entry = _parse_words(entry)
    if len(entry.words) < 2:
        raise ValueError("needs at least one source and a destination")
    return entry


def _parse_whole(entry: Instruction) -> Instruction:
    return replace(entry, words=(entry.text,))


def _parse_from(entry: Instruction) -> Instruction:
    found = entry.text.split()
    if len(found) == 3 and found[1].upper() == "AS":
        found = found[:1]
    if len(found) != 1:
        raise ValueError("takes one image, and optionally AS a name")
    return replace(entry, words=tuple(found))


def _parse_pairs(entry: Instruction) -> Instruction:
    found = words.split(entry.text)
    if "=" not in found[0]:
        if entry.name == "LABEL":
            raise ValueError(f"{found[0]!r} is not key=value")
        # The old form, ENV NAME the rest of the line.
        name, _, value = entry.text.partition(" ")
        if not value.strip():
            raise ValueError(f"{name} has no value")
        return replace(entry, pairs=((name, value.strip()),))
    for word in found:
        if "=" not in word or word.startswith("="):
            raise ValueError(f"{word!r} is not NAME=value")
    return replace(entry, pairs=tuple(_pair(word) for word in found))


def _parse_arg(entry: Instruction) -> Instruction:
    found = words.split(entry.text)
    return replace(entry, pairs=tuple(_pair(word) if "=" in word else (word, None) for word in found))


def _pair(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    return name, value


_PARSERS: dict[str, Callable[[Instruction], Instruction]] = {
    "ARG": _parse_arg,
    "CMD": _parse_command,
    "COPY": _parse_copy,
    "ENTRYPOINT": _parse_command,
    "ENV": _parse_pairs,
    "EXPOSE": _parse_words,
    "FROM": _parse_from,
    "LABEL": _parse_pairs,
    "RUN": _parse_command,
    "USER": _parse_whole,
    "WORKDIR": _parse_whole,
}
