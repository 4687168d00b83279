"""The parser set against an independent one: the package ``dockerfile``, which wraps BuildKit's own in Go.

Instruction by instruction: name, first line, flags, arguments, whether they were JSON, here-documents. The files in
``dockerfiles/`` were written for this; random ones are put together of pieces that mean something.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import dockerfile as independent
import pytest

from runtime.builder.dockerfile import parse
from runtime.builder.forms import parse_instruction
from runtime.builder.instruction import Instruction
from runtime.errors import UsageError

CORPUS = sorted((Path(__file__).parent / "dockerfiles").glob("*.dockerfile"))
REPOSITORY = Path(__file__).parents[3]
OWN = sorted((*REPOSITORY.glob("scenarios/*/*/Dockerfile"), *REPOSITORY.glob("vm_images/*.dockerfile")))


def as_theirs(entry: Instruction) -> dict[str, Any]:
    """Our instruction as the other parser describes it."""
    name, value, sub = entry.name, entry.words, None
    if name == "ONBUILD":
        trigger = parse_instruction(entry.text)
        known = {"cmd": "ONBUILD", "sub_cmd": trigger.name, "line": entry.line, "flags": [], "heredocs": []}
        return as_theirs(trigger) | known
    if name in ("ENV", "LABEL"):
        value = tuple(word for pair in entry.pairs for word in pair if word is not None)
    elif name == "ARG":
        value = tuple(first if second is None else f"{first}={second}" for first, second in entry.pairs)
    elif name == "HEALTHCHECK":
        value = ("CMD", *entry.words[1:]) if entry.words[0] == "CMD-SHELL" else entry.words
    elif name == "FROM" and len(entry.words) == 2:
        value = (entry.words[0], "AS", entry.words[1])
    heredocs = [(one.name, one.content) for one in entry.heredocs]
    return {
        "cmd": name, "sub_cmd": sub, "line": entry.line, "value": value, "json": entry.exec_form, "heredocs": heredocs,
        "flags": sorted(f"--{flag}={text}" for flag, text in entry.flags),
    }  # fmt: skip


def theirs(command: independent.Command) -> dict[str, Any]:
    name, value = command.cmd.upper(), command.value
    if name == "FROM" and len(value) == 3:  # stages' names are not case sensitive
        value = (value[0], "AS", value[2].lower())
    if name == "HEALTHCHECK":
        value = (value[0].upper(), *value[1:])
    flags = sorted(flag if "=" in flag else f"{flag}=true" for flag in command.flags)
    return {
        "cmd": name, "sub_cmd": command.sub_cmd and command.sub_cmd.upper(), "line": command.start_line, "value": value,
        "json": command.json, "heredocs": [(one.name, one.content) for one in command.heredocs],
        "flags": [] if name == "ONBUILD" else flags,  # those of its instruction are not told
    }  # fmt: skip


def read_by_theirs(text: str) -> list[dict[str, Any]]:
    # A file that ends within a continuation without text leaves them an instruction without a name.
    return [theirs(command) for command in independent.parse_string(text) if command.cmd]


@pytest.mark.parametrize("path", [*CORPUS, *OWN], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_files_are_read_as_buildkit_reads_them(path: Path) -> None:
    text = path.read_text()
    ours = parse(text, path).instructions
    assert [as_theirs(entry) for entry in ours] == read_by_theirs(text)


# An array ends its line: in the package's release of the parser, but not in later ones, anything may follow it.
PIECES = (
    *("\\\n", "\\ \n", "`\n", "\n", "\n", "\n\n", "\n# comment\n", "\n  # indented\n", "\t", " ", "  ", "=", ":", ","),
    *(
        '"q r"',
        "'s t'",
        '["a", "b c"]\n',
        "[",
        "$A",
        "${A:-b}",
        "\\\\",
        "x",
        "y z",
        "/srv",
        "a=b ",
        'c="d e" ',
        "f=g\\ h ",
    ),
    *("<<EOF\n", " <<-EOF\n", ' <<"EOF" /x\n', "EOF\n", "EOF\n", "\tEOF\n", "<<<", "1<<2", "u v", "w z"),
    *("\nRUN ", "\nCOPY a b", "\nCOPY --from=x --link ", "\nENV a=b ", "\nARG k=", "\nLABEL l=", "\nCMD ", "\nUSER u"),
    *("\nADD --chown=a:b ", "\nADD -- x ", "\nEXPOSE 80 ", "\nVOLUME /v ", "\nVOLUME ", "\nONBUILD RUN x", "\nFROM a"),
    *("\nHEALTHCHECK CMD x", "\nHEALTHCHECK --retries=3 CMD ", "\nFROM a AS b", "\nSHELL ", "\nWORKDIR /x", "\r\n"),
    *(
        "\nSTOPSIGNAL 9",
        "\nMAINTAINER me ",
        "\nENTRYPOINT ",
        "\nrun x",
        "\n   RUN\tx",
        "\nRUN --mount=type=cache,target=/a b",
    ),
)


def test_random_files_are_read_alike_or_refused() -> None:
    """We may refuse more, for their parser leaves much to the builder; what we read, it reads, and alike."""
    generator = random.Random(5)
    read = 0
    for _ in range(4000):
        head = generator.choice(("", "", "# escape=`\n", "# syntax=docker/dockerfile:1\n"))
        text = f"{head}FROM base\n" + "".join(generator.choices(PIECES, k=generator.randrange(1, 9)))
        try:
            ours = parse(text).instructions
        except UsageError:
            continue
        read += 1
        assert [as_theirs(entry) for entry in ours] == read_by_theirs(text), text
    assert read > 700, "the pieces make too few files that can be read"
