"""Parse a Dockerfile to a list of instructions, whose form is checked; they are not expanded or executed yet."""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from runtime.builder import words
from runtime.builder.forms import parse_instruction, parse_triggered
from runtime.builder.instruction import Instruction
from runtime.builder.lines import LineError, Logical, read_lines
from runtime.errors import UsageError
from runtime.files import check_inside, read_bounded

# A bound on the cost of a mistake or of malice; a file written by hand is far shorter.
MOST_BYTES = 2**20


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
    instructions = tuple(_instruction(file, logical) for logical in lines.logical)
    _check_order(file, instructions)
    return replace(file, instructions=instructions)


def parse_trigger(text: str, line: int) -> Instruction:
    """Return the instruction that a parent image's ONBUILD has, for the FROM in ``line``. Raises ValueError."""
    lines = read_lines(text)
    if len(lines.logical) != 1:
        raise ValueError(f"{text[:40]!r} is not one instruction")
    [logical] = lines.logical
    return replace(parse_triggered(logical.text, logical.heredocs, line, lines.escape), trigger=True)


def _instruction(file: Dockerfile, logical: Logical) -> Instruction:
    try:
        return parse_instruction(logical.text, logical.heredocs, logical.number, file.escape)
    except ValueError as error:
        raise file.error(logical.number, str(error)) from error


def _check_order(file: Dockerfile, instructions: tuple[Instruction, ...]) -> None:
    first = next((entry for entry in instructions if entry.name != "ARG"), None)
    if first is None:
        raise file.error(1, "no FROM instruction")
    if first.name != "FROM":
        raise file.error(first.line, f"{first.name} before FROM; only ARG may come first")
