"""Dockerfiles as an independent parser reads them: the package ``dockerfile``, which wraps BuildKit's own in Go.

Of each instruction it tells the name, the first line, flags, arguments, whether they were JSON, and here-documents.
"""

from __future__ import annotations

from typing import Any

import dockerfile as independent

from runtime.builder.forms import parse_instruction
from runtime.builder.instruction import Instruction


def as_theirs(entry: Instruction) -> dict[str, Any]:
    """Return an instruction of ours as the other parser describes it."""
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


def _theirs(command: independent.Command) -> dict[str, Any]:
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
    """Return the instructions that the other parser sees in a text. Raises its own error, a ValueError."""
    # A file that ends within a continuation without text leaves them an instruction without a name.
    return [_theirs(command) for command in independent.parse_string(text) if command.cmd]
