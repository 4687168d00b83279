"""A comparison as Markdown, for the summary of a job."""

from __future__ import annotations

import re

from reports.runs import terminal, wording
from runtime.output import printable
from testbed.runs.compare import Comparison

# What GitHub takes of one step's summary is a MiB.
_MOST_ROWS = 200
_SYMBOLS = {"regression": "❌", "cannot tell": "❔", "ok": "✅", "": ""}
# What means something in Markdown or HTML; a text from a run folder means itself.
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|<>&~$@-])")


def escape(text: str) -> str:
    """Return a text in one line in which nothing is Markdown."""
    return _SPECIAL.sub(r"\\\1", " ".join(printable(text).split())).replace("\\<", "&lt;").replace("\\&", "&amp;")


def export_comparison(comparison: Comparison, gate: bool) -> str:
    """Return a comparison as Markdown: the result, what differs, the judged figures, then the others folded away."""
    before, after = comparison.before, comparison.after
    title = f"{_SYMBOLS[comparison.result]} " if gate else ""
    lines = [
        f"### {title}{escape(comparison.scenario)}: {escape(wording.describe_side(after.runs, after.commits))}",
        "",
        f"Baseline: {escape(wording.describe_side(before.runs, before.commits))}",
        "",
    ]
    lines += [escape(wording.describe_result(comparison)), ""] if gate else []
    lines += [f"- differs: {escape(line)}" for line in terminal.list_differences(comparison.differences)]
    lines += [f"- note: {escape(note)}" for note in comparison.notes]
    lines += [f"- {escape(name)}: {escape(sentence)}" for name, sentence in wording.list_failures(comparison)]
    shown = wording.make_lines(comparison)
    judged = [line for line in shown if line.result]
    others = [line for line in shown if not line.result]
    lines += ["", *_table(judged)] if judged else []
    if others:
        lines += ["", f"<details><summary>{len(others)} more figures</summary>", "", *_table(others), "", "</details>"]
    return "\n".join([*lines, ""])


def _table(of: list[wording.Line]) -> list[str]:
    head = "| | platform | figure | baseline | compared | change | verdict |"
    rows = [
        f"| {_SYMBOLS[one.result]} | "
        + " | ".join(map(escape, (one.platform, one.title, one.before, one.after, one.change, one.verdict)))
        + " |"
        for one in of[:_MOST_ROWS]
    ]
    rest = len(of) - _MOST_ROWS
    return [head, "|---|---|---|---|---|---|---|", *rows, *([f"| | and {rest} more | | | | | |"] if rest > 0 else [])]
