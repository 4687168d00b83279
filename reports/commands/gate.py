"""What becomes of a comparison: it is printed, written as was asked for, and may decide the exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from reports.commands.options import RESULTS
from runtime.errors import UsageError
from testbed.analysis import Run
from testbed.progress import print_progress
from testbed.results import REFERENCE, replace_file
from testbed.runs.compare import Comparison, Limits, compare_sides, parse_limits
from testbed.runs.fingerprint import look_ahead
from testbed.runs.sides import Measured, measure, read_side
from testbed.runs.verdict import EXIT_CODES
from testbed.scenario.model import NOTHING_ASKED, Asked, load

_STEP_SUMMARY = "GITHUB_STEP_SUMMARY"


class Wishes(Struct, frozen=True):
    """What is wanted of a comparison: an exit code (``gate``), files ("" for none), JSON instead of text."""

    gate: bool = False
    html: str = ""
    junit: str = ""
    markdown: str = ""
    json: bool = False


class Planned(Struct, frozen=True):
    """What a bench was asked to measure, and where."""

    scenario: str
    scenarios: Path
    quick: bool
    machine: str
    compose: Asked = NOTHING_ASKED


class Baseline(Struct, frozen=True):
    """What a run that is still to be made will be compared with."""

    side: Sequence[Measured]
    limits: Limits
    wishes: Wishes


def read_baseline(named: str, limit: str, metrics: str, wishes: Wishes, planned: Planned | None) -> Baseline | None:
    """Read what a bench is to be compared with; None where nothing is.

    Raises UsageError, before anything is measured, for a baseline that is damaged or could not be compared with what is
    ``planned`` (None: a run that goes on as it began), and for options that need one.
    """
    if not named:
        if wishes.gate or limit or metrics or wishes.html or wishes.junit:
            raise UsageError("--gate, --limit, --metrics, --html and --junit need --baseline", "give a run, or several")
        return None
    side = read_side(named, RESULTS)
    if planned is not None:
        _check_ahead(named, side[0].run, planned)
    return Baseline(side, parse_limits(limit, metrics), wishes)


def _check_ahead(named: str, before: Run, planned: Planned) -> None:
    """Raise UsageError where what is planned could not be compared with a run."""
    scenario = load(planned.scenario, planned.scenarios, planned.compose)
    settings = json.loads(msgspec.json.encode(scenario.chosen(planned.quick)))  # as a manifest has them
    if obstacles := look_ahead(before, scenario.name, settings, planned.machine == REFERENCE):
        raise UsageError(
            f"--baseline {named}: this run could not be compared with it: {obstacles[0]}",
            "give a run of the same scenario, settings and machine; --quick has other settings",
        )


def compare_with(baseline: Baseline, run: Path) -> Comparison:
    """Compare a run that was just made with its baseline."""
    return compare_sides(baseline.side, [measure(run)], baseline.limits)


def conclude(comparison: Comparison, wishes: Wishes, print_json: bool = True) -> int:
    """Write and print a comparison as it was wanted; return the exit code, 0 without a gate."""
    from reports.exports import junit, markdown
    from reports.runs import data, page, terminal

    if wishes.html:
        replace_file(Path(wishes.html), page.render_page(comparison, wishes.gate).encode(errors="replace"))
        print_progress(f"page: {wishes.html}")
    if wishes.junit:
        replace_file(Path(wishes.junit), junit.export_comparison(comparison))
    text = markdown.export_comparison(comparison, wishes.gate)
    if wishes.markdown:
        replace_file(Path(wishes.markdown), text.encode(errors="replace"))
    append_step_summary(lambda: text)
    if wishes.json and print_json:
        print(json.dumps(data.as_json(comparison), indent=2, allow_nan=False))
    elif not wishes.json:
        terminal.print_comparison(comparison, wishes.gate)
    return EXIT_CODES[comparison.result] if wishes.gate else 0


def append_step_summary(describe: Callable[[], str]) -> None:
    """Append Markdown to the summary of a GitHub job's step, where this is one."""
    if file := os.environ.get(_STEP_SUMMARY):
        try:
            with Path(file).open("a", encoding="utf-8", errors="replace") as stream:
                stream.write(f"{describe()}\n")
        except OSError as error:
            print_progress(f"cannot append to {file} ({_STEP_SUMMARY}): {error.strerror}")
