"""Lists for a terminal: a name and what is said of it, folded where a line is longer than the terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence

from runtime.output import printable
from testbed.listing import ListedPlatform, ListedScenario

_LEAST_ROOM = 30


def _fold(pairs: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Return blocks of lines: the name, and beside it lines that are folded to the terminal's width."""
    blocks = [(name, list(lines)) for name, lines in pairs]
    before = 2 + max((len(name) for name, _ in blocks), default=0)
    room = max(_LEAST_ROOM, shutil.get_terminal_size().columns - before)
    shown = []
    for name, lines in blocks:
        folded = [part for line in lines for part in textwrap.wrap(printable(line), room, subsequent_indent="  ")] or [
            ""
        ]
        heads = [name, *[""] * (len(folded) - 1)]
        shown += [f"{head:{before}}{line}".rstrip() for head, line in zip(heads, folded, strict=True)]
    return "\n".join(shown)


def describe_scenarios(listed: Iterable[ListedScenario]) -> str:
    """Return the scenarios as text."""
    return _fold((one.name, _lines_of_scenario(one)) for one in listed)


def _lines_of_scenario(one: ListedScenario) -> list[str]:
    if one.problem:
        return [one.description, f"cannot be measured: {one.problem}"]
    return [
        one.description,
        f"services: {', '.join(one.services)}",
        f"start: {one.start}",
        f"density: {one.density}",
        f"utilisation: {one.utilisation}",
    ]


def describe_platforms(listed: Iterable[ListedPlatform]) -> str:
    """Return the platforms as text: those that can run here, then the others with why not."""
    ordered = sorted(listed, key=lambda one: not one.available)
    return _fold((one.name, _lines_of_platform(one)) for one in ordered)


def _lines_of_platform(one: ListedPlatform) -> list[str]:
    if one.available:
        return [f"{one.description} [{one.detail}]"]
    return [one.description, f"not here: {one.detail}", *([f"-> {one.fix}"] if one.fix else [])]
