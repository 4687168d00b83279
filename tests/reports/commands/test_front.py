"""What is printed when nobody reads it: nothing, and no traceback either."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FRONT = (sys.executable, "-P", "-m", "reports.commands.front", "--search-root", str(ROOT))


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen([*FRONT, *arguments], stdout=pipe, stderr=pipe, text=True, env=environment, cwd="/")


def test_it_lists_the_tasks() -> None:
    output, errors = start("--list").communicate(timeout=60)
    assert output.startswith("Available tasks:") and "  bench " in output and errors == ""


@pytest.mark.parametrize("arguments", [("--list",), ("--help", "bench"), ("scenarios",)], ids=" ".join)
@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_closed_pipe_ends_it_quietly(
    arguments: tuple[str, ...], buffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", buffered)
    with start(*arguments) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
