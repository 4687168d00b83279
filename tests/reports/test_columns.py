"""A table fits the terminal, with every cell of it."""

from __future__ import annotations

import re

import pytest
from rich.console import Console

from reports.columns import Line, lay_out, make_tables

LABELS = {"container": "container", "vm": "vm (TCG, emulated)", "pod": "vm-pod (KVM, nested)", "other": "vm-other"}
CELL = "0.612 s (range 0.564\N{EN DASH}0.647)"
LINES = [
    Line("start"),
    Line("  first correct answer", dict.fromkeys(LABELS, CELL)),
    Line("  each further, drop of MemAvailable", {"vm": "5 (then the service level broke) [red]"}),
]


def printed(width: int, labels: dict[str, str] = LABELS, lines: list[Line] = LINES) -> str:
    console = Console(width=width, highlight=False, record=True)
    with console.capture() as captured:
        for part in make_tables(lines, labels, width):
            console.print(part)
    return captured.get()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 132, 300])
def test_no_line_is_longer_than_the_terminal_and_nothing_is_cut(width: int) -> None:
    text = printed(width)
    assert max(map(len, text.splitlines())) <= max(width, 50)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert text.count("0.612 s") == text.count("0.564\N{EN DASH}0.647") == len(LABELS)
    words = re.sub(r"\s+", " ", text)
    for part in ("container", "(TCG, emulated)", "(KVM, nested)", "[red]"):
        assert part in words
    for word in "first correct answer each further drop of MemAvailable start".split():
        assert word in text


def test_heads_that_fill_their_columns_stand_apart() -> None:
    labels = {f"p{number}": f"platform-{number:02}" for number in range(12)}
    lines = [Line("start"), *(Line("  a faults", dict.fromkeys(labels, "1 s")) for _ in range(4))]
    text = printed(60, labels, lines)
    assert text.count("faults") == 4 and not re.search(r"faults\S", text)


@pytest.mark.parametrize("width", [80, 100])
def test_twelve_platforms_have_a_row_each(width: int) -> None:
    labels = {f"p{number}": f"platform-{number:02}" for number in range(12)}
    cells = {name: f"{number}.5 s (1.2\N{EN DASH}3.4)" for number, name in enumerate(labels)}
    lines = [Line("start"), *(Line(f"  phase {letter}", cells) for letter in "abcde")]
    text = printed(width, labels, lines)
    assert max(map(len, text.splitlines())) <= width
    for number, label in enumerate(labels.values()):
        rows = [line for line in text.splitlines() if line.startswith(label)]
        assert len(rows) == 1, "five figures fit beside each other"
        assert rows[0].count(f"{number}.5 s") == 5


def test_platforms_stand_side_by_side_as_far_as_they_fit_and_each_has_a_row_beyond() -> None:
    (wide,) = lay_out(LINES, LABELS, 300)
    assert wide.head == ("", *LABELS.values()) and wide.rows[1][1] == CELL
    (folded,) = lay_out(LINES, LABELS, 120)
    assert folded.rows[1][1] == CELL.replace(" (", "\n(")
    (transposed,) = lay_out(LINES, LABELS, 80)
    assert transposed.title == "start" and transposed.head == ("", "first correct answer", LINES[2].title.strip())
    assert [row[0] for row in transposed.rows] == list(LABELS.values())


def test_figures_that_do_not_fit_follow_below() -> None:
    lines = [Line("start"), *(Line(f"  figure {number}", dict.fromkeys(LABELS, CELL)) for number in range(9))]
    parts = lay_out(lines, LABELS, 80)
    assert len(parts) > 1 and {part.title for part in parts} == {"start"}
    assert [head for part in parts for head in part.head[1:]] == [f"figure {number}" for number in range(9)]
