"""A table fits the terminal, with every cell of it."""

from __future__ import annotations

import re

import pytest
from rich.console import Console

from reports.columns import Line, make_tables, split_parts

LABELS = {"container": "container", "vm": "vm (TCG, emulated)", "pod": "vm-pod (KVM, nested)", "other": "vm-other"}
CELL = "0.612 s (range 0.564\N{EN DASH}0.647)"
LINES = [
    Line("start"),
    Line("  first correct answer", dict.fromkeys(LABELS, CELL)),
    Line("  each further, drop of MemAvailable", {"vm": "5 (then the service level broke) [red]"}),
]


def printed(width: int) -> str:
    console = Console(width=width, highlight=False, record=True)
    with console.capture() as captured:
        for part in make_tables(LINES, LABELS, width):
            console.print(part)
    return captured.get()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 132, 300])
def test_no_line_is_longer_than_the_terminal_and_nothing_is_cut(width: int) -> None:
    text = printed(width)
    assert max(map(len, text.splitlines())) <= max(width, 50)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert text.count("0.612 s") == text.count("0.564\N{EN DASH}0.647") == len(LABELS)
    words = re.sub(r"\s+", " ", text)
    for part in ("container", "(TCG, emulated)", "(KVM, nested)", "first correct answer", "[red]"):
        assert part in words


def test_platforms_stand_side_by_side_as_far_as_they_fit() -> None:
    assert [part.platforms for part in split_parts(LINES, LABELS, 300)] == [("container", "vm", "pod", "other")]
    assert [part.platforms for part in split_parts(LINES, LABELS, 80)] == [("container", "vm"), ("pod", "other")]
    assert not split_parts(LINES, LABELS, 300)[0].folded
