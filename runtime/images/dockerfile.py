"""Parse a Dockerfile to a list of instructions, whose form is checked; they are not expanded or executed yet."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.files import check_inside, read_bounded
from runtime.images import words
from runtime.images.lines import LineError, read_lines

# A bound on the cost of a mistake or of malice; a file written by hand is far shorter.
MOST_BYTES = 2**20
_FLAG = re.compile(r"--([^\s=]+)(=\S*)?(?:\s+|$)")
_HEREDOC = re.compile(r"[0-9]*<<-?([^<]*)")
_UNSPEAKABLE = re.compile("[\0\ud800-\udfff]")
_FLAGS_OF = {"COPY": ("chown", "chmod")}


class Instruction(Struct, frozen=True):
    """One instruction.

    It begins in ``line`` (counted from 1), and ``text`` is what follows its name and flags, with continuation lines
    joined. ``words`` are its arguments (of the exec form, or split at blanks). ``pairs`` are those of ENV, LABEL and
    ARG, not expanded; a value of None is that of an ARG without a default. ``exec_form`` is true if the arguments were
    a JSON array.
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
    """A parsed file; later errors name its ``path`` and an instruction's line.

    ``escape`` is the escape character, ``\\`` unless the file sets another.
    """

    path: Path
    instructions: tuple[Instruction, ...] = field(default=())
    escape: str = words.ESCAPE

    def error(self, line: int, what: str, hint: str = "") -> UsageError:
        """Return a UsageError that names ``line`` of this file."""
        return UsageError(f"{self.path}:{line}: {what}", hint)


def read(path: Path, context: Path) -> Dockerfile:
    """Parse the file at ``path``. Raises UsageError if it cannot be read or is invalid.

    Errors quote lines of the file. So if it lies in the build context, it must not be a link that leads out of there.
    """
    if Path(os.path.abspath(path)).is_relative_to(os.path.abspath(context)):
        check_inside(path, context)
    content = read_bounded(path, MOST_BYTES)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UsageError(f"read {path}: it is UTF-16", "save it as UTF-8")
    return parse(content.decode("utf-8", "surrogateescape"), path)


def parse(text: str, path: Path = Path("Dockerfile")) -> Dockerfile:
    """Parse the text of a Dockerfile. Raises UsageError ``path:line: what``; ``path`` is used for nothing else."""
    file = Dockerfile(path)
    try:
        lines = read_lines(text)
    except LineError as error:
        raise file.error(error.number, str(error)) from error
    file = Dockerfile(path, escape=lines.escape)
    instructions = tuple(_instruction(file, line, logical) for line, logical in lines.logical)
    _check_order(file, instructions)
    return replace(file, instructions=instructions)


def _instruction(file: Dockerfile, line: int, logical: str) -> Instruction:
    name, *rest = words.BLANKS.split(logical, maxsplit=1)
    name, text = name.upper(), "".join(rest)
    if name not in _PARSERS:
        raise file.error(line, f"unknown instruction {name[:40]}; known: {', '.join(sorted(_PARSERS))}")
    try:
        flags, text = _flags(name, text)
        if not text:
            raise ValueError("needs an argument")
        entry = _PARSERS[name](Instruction(name, line, text, flags), file.escape)
        _check_words(entry)
        return entry
    except ValueError as error:
        raise file.error(line, f"{name}: {error}") from error


def _flags(name: str, text: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """Return the flags at the beginning of an instruction, and the text after them."""
    known = _FLAGS_OF.get(name, ())
    flags: dict[str, str] = {}
    while match := _FLAG.match(text):
        flag, value = match[1], (match[2] or "")[1:]
        if flag not in known:
            listed = ", ".join(f"--{flag}" for flag in known) or "none"
            raise ValueError(f"unknown flag --{flag[:40]}; known: {listed}")
        if not value or flag in flags:
            raise ValueError(f"--{flag} is there twice" if flag in flags else f"--{flag} needs a value")
        flags[flag] = value
        text = text[match.end() :]
    if re.match(r"--(\s|$)", text):
        text = text[2:].lstrip(words.SPACES)
    return tuple(flags.items()), text


def _check_words(entry: Instruction) -> None:
    """Raise ValueError for words that a JSON array can hold and a process cannot be given."""
    for word in entry.words:
        if _UNSPEAKABLE.search(word):
            raise ValueError(f"{word!r} is no text that a process can be given")


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
    """Return the strings of an exec form, or None if the text is not JSON: then it is for a shell, as in Docker.

    Raises ValueError for an array that holds anything but strings.
    """
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError("a JSON array may hold only strings")
    return tuple(value)


def _refused(constant: str) -> None:
    """Raise ValueError for NaN and Infinity, which Python's reader accepts although JSON does not have them."""
    raise ValueError(constant)


def _parse_command(entry: Instruction, escape: str) -> Instruction:
    array = _json_words(entry.text)
    if array is not None:
        if not array and entry.name == "RUN":
            raise ValueError("the array is empty")
        return replace(entry, words=array, exec_form=True)
    if entry.name == "RUN":
        _check_heredoc(entry.text, escape)
    return replace(entry, words=("/bin/sh", "-c", entry.text))


def _check_heredoc(text: str, escape: str) -> None:
    try:
        found = words.split(text, escape)
    except ValueError:  # for the shell to judge
        return
    if any((match := _HEREDOC.fullmatch(word)) and match[1] for word in found):
        raise ValueError("here-documents are not supported; use a script and COPY, or &&")


def _split_at_blanks(text: str) -> tuple[str, ...]:
    return tuple(word for word in words.BLANKS.split(text) if word)


def _parse_words(entry: Instruction, escape: str) -> Instruction:
    return replace(entry, words=_split_at_blanks(entry.text))


def _parse_copy(entry: Instruction, escape: str) -> Instruction:
    array = _json_words(entry.text)
    if array is None:
        _check_heredoc(entry.text, escape)
    found = array if array is not None else _split_at_blanks(entry.text)
    if len(found) < 2:
        raise ValueError("needs at least one source and a destination")
    return replace(entry, words=found, exec_form=array is not None)


def _parse_whole(entry: Instruction, escape: str) -> Instruction:
    return replace(entry, words=(entry.text,))


def _parse_from(entry: Instruction, escape: str) -> Instruction:
    found = _split_at_blanks(entry.text)
    if len(found) == 3 and found[1].upper() == "AS":
        found = found[:1]
    if len(found) != 1:
        raise ValueError("takes one image, and optionally AS a name")
    return replace(entry, words=found)


def _parse_pairs(entry: Instruction, escape: str) -> Instruction:
    found = words.split(entry.text, escape)
    if not found or "=" not in found[0]:
        # The old form: NAME, and the rest of the line as the value.
        name, *value = words.BLANKS.split(entry.text, maxsplit=1)
        if not value:
            raise ValueError(f"{name} has no value")
        return replace(entry, pairs=((name, value[0]),))
    return replace(entry, pairs=tuple(_pair(word) for word in found))


def _parse_arg(entry: Instruction, escape: str) -> Instruction:
    found = words.split(entry.text, escape)
    if not found:
        raise ValueError("needs a name")
    return replace(entry, pairs=tuple(_pair(word) if "=" in word else (word, None) for word in found))


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not name or not equals:
        raise ValueError(f"{word!r} is not NAME=value")
    return name, value


_PARSERS: dict[str, Callable[[Instruction, str], Instruction]] = {
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
