"""A run's answer as Markdown, for the summary of a job."""

from __future__ import annotations

from pathlib import Path

from reports.exports.markdown import escape
from reports.rows import make_rows
from reports.summary import compose
from testbed.analysis import read_run
from testbed.results import RunFolder


def describe_run(run_folder: Path) -> str:
    """Return warnings, headline, details and the short table, a column a platform."""
    run = read_run(RunFolder.open(run_folder))
    answer = compose(run)
    lines = [f"### {escape(answer.headline)}", ""]
    lines += [f"- {escape(sentence)}" for sentence in answer.details]
    lines += [f"- note: {escape(sentence)}" for sentence in answer.warnings]
    labels = {one.name: escape(one.label) for one in run.platforms}
    if labels:
        lines += ["", f"| | | {' | '.join(labels.values())} |", "|---|---|" + "---|" * len(labels)]
        for row in make_rows(run):
            cells = " | ".join(escape(row.cells.get(name, "–")) for name in labels)
            lines.append(f"| {escape(row.measure)} | {escape(row.figure)} | {cells} |")
    return "\n".join([*lines, "", f"Run {escape(run.folder.run_id)}.", ""])
