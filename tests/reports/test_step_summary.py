"""The summary of a job has the answer and the table, and nothing of a run folder is Markdown in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reports import step_summary

WriteRun = Callable[..., Path]


def test_it_has_the_answer_and_a_row_a_figure(full_run: Path) -> None:
    text = step_summary.describe_run(full_run)
    assert text.startswith("### From request to first correct answer, clickme took 0")
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len(tables) > 10 and len({line.replace("\\|", "").count("|") for line in tables}) == 1
    assert "vm \\(TCG, emulated\\)" in tables[0]


def test_nothing_in_a_run_folder_is_markup(write_run: WriteRun) -> None:
    text = step_summary.describe_run(write_run(scenario="[x](http://y) <img src=z> **b** `c` | d\n# e"))
    assert "<img" not in text and "[x](" not in text and "\n# e" not in text
