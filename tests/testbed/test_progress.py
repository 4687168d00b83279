"""Progress is a bar on a terminal, and plain lines elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.progress import Step, parse_step

ROOT = Path(__file__).resolve().parents[2]
LINES = ("building web", "trial 3 of 12: start on container, about 5 min left", "  ready after 0.612 s", "\x1b[31mred")
SCRIPT = f"""
from testbed.progress import show_progress
with show_progress() as report:
    for line in {LINES!r}:
        report(line)
print("the answer")
"""


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("trial 3 of 12: start on vm, about 5 min left", Step(2, 12, "start on vm, about 5 min left")),
        ("trials 4 to 8 of about 30: utilisation on vm", Step(3, 30, "utilisation on vm")),
        ("trial 9 of 3: more than were expected", Step(8, 9, "more than were expected")),
        ("[    12 s] trial 2 of 2: start on vm", Step(1, 2, "start on vm")),
        ("  ready after 0.6 s", None),
        ("trial of strength", None),
        ("trial 99999999999 of 3: x", None),
    ],
)
def test_a_line_that_announces_trials_is_a_step(line: str, step: Step | None) -> None:
    assert parse_step(line) == step


def test_piped_it_is_plain_lines_and_standard_output_is_left_alone() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "the answer\n"
    assert done.stderr.splitlines() == ["building web", LINES[1], "  ready after 0.612 s", "red"]


def on_terminal(kind: str) -> str:
    """What the script writes to standard error that is a terminal."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": kind, "COLUMNS": "100"}
    command, pipe = [sys.executable, "-c", SCRIPT], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=follower, env=environment) as process:
        os.close(follower)
        written = b""
        try:
            while piece := os.read(leader, 65536):
                written += piece
        except OSError:  # its other end is closed
            pass
        assert process.stdout and process.stdout.read() == b"the answer\n"
    os.close(leader)
    return written.decode()


def test_on_a_terminal_there_is_a_bar_with_the_time_left_and_the_lines_stay() -> None:
    written = on_terminal("xterm")
    assert "2/12" in written and "about 5 min left" in written and "━" in written
    assert "building web" in written and "ready after 0.612 s" in written
    assert "\x1b[31mred" not in written


def test_a_terminal_that_cannot_move_its_cursor_gets_lines() -> None:
    assert on_terminal("dumb").splitlines() == ["building web", LINES[1], "  ready after 0.612 s", "red"]
