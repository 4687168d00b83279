"""The report of a run: ``render`` writes report.html; ``reports.summary`` has the answer as text, table and JSON."""

from __future__ import annotations

from pathlib import Path


def render(run_folder: Path) -> Path:
    """Write the run folder's report.html and return its path; the same folder always gives the same bytes.

    Raises UsageError when the folder is damaged, PrerequisiteError when it cannot be written to.
    """
    from reports.page import render_page
    from testbed.analysis import read_run
    from testbed.results import RunFolder, replace_file

    report = run_folder / "report.html"
    replace_file(report, render_page(read_run(RunFolder.open(run_folder))).encode(errors="replace"))
    return report
