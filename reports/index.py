"""The index page of a folder of runs: what each was, its headline figures, and a link to its report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from msgspec import Struct

from reports.runs import wording
from reports.templating import make_environment
from runtime.errors import TestbedError
from testbed.results import replace_file
from testbed.runs.figures import WORK, Figure
from testbed.runs.fingerprint import read_commit, shorten
from testbed.runs.sides import Measured, list_folders, measure
from testbed.statistics import estimate_median

INDEX = "index.html"
_LONGEST_PROBLEM = 400
# The headline figures, of each measure one.
_HEADLINES = (("start", "ready"), ("density", "applications"), ("utilisation", "cpu_per_request"))


class Entry(Struct, frozen=True):
    """A run on the page; ``figures`` are its headline figures, by platform. ``problem`` is why there is none of it."""

    folder: str
    href: str
    scenario: str = ""
    started: str = ""
    status: str = ""
    commit: str = ""
    machine: str = ""
    figures: Mapping[str, tuple[str, ...]] = {}
    problem: str = ""


def write_index(base: Path) -> tuple[Path, int]:
    """Write ``index.html`` into a folder of runs, and return its path and how many runs it lists, the newest first.

    A folder that is damaged is listed with what is wrong. Raises UsageError when there are too many runs,
    PrerequisiteError when the page cannot be written.
    """
    entries = [_read_entry(path) for path in reversed(list_folders(base))]
    environment = make_environment()
    page = environment.get_template("index.html.j2").render(entries=entries, titles=_list_titles())
    path = base / INDEX
    replace_file(path, page.encode(errors="replace"))
    return path, len(entries)


def _list_titles() -> list[str]:
    titles = {
        "ready": "first correct answer",
        "applications": "copies within the SLO",
        "cpu_per_request": "CPU per request",
    }
    return [*(titles[metric] for _, metric in _HEADLINES), WORK]


def _read_entry(path: Path) -> Entry:
    name = shorten(os.fsencode(path.name).decode(errors="replace"))
    try:
        measured = measure(path)
    except TestbedError as error:
        return Entry(name, "", problem=shorten(error.message, _LONGEST_PROBLEM))
    manifest = measured.run.manifest
    report = path / "report.html"
    return Entry(
        name,
        quote(os.fsencode(path.name)) + "/report.html" if os.path.isfile(report) else "",
        shorten(measured.run.folder.scenario),
        shorten(str(manifest.get("started") or "")),
        shorten(str(manifest.get("status") or "")),
        read_commit(measured.run),
        "reference machine" if measured.run.instruction_time else "",
        _pick_headlines(measured),
    )


def _pick_headlines(measured: Measured) -> dict[str, tuple[str, ...]]:
    """Return each platform's headline figures as texts, of the load at its highest rate; "" for what it has not."""
    shown = {}
    for platform in measured.run.platforms:
        cells = []
        for measure_name, metric in _HEADLINES:
            of = [
                one
                for one in measured.figures
                if (one.platform, one.measure, one.metric) == (platform.name, measure_name, metric)
            ]
            cells.append(_show(measured, max(of, key=lambda one: one.rate_per_s)) if of else "")
        cells.append(_show_work(measured, platform.name))
        if any(cells):
            shown[shorten(platform.label)] = tuple(cells)
    return shown


def _show(measured: Measured, figure: Figure) -> str:
    rate = f" at {figure.rate_per_s:g}/s" if figure.rate_per_s else ""
    return wording.describe_figure(figure).show(estimate_median(measured.figures[figure]).value) + rate


def _show_work(measured: Measured, platform: str) -> str:
    """Return the first figure that an application's work gave on a platform, with its name; "" where it had none."""
    own = (one for one in measured.figures if (one.platform, one.measure) == (platform, WORK) and one.unit)
    if (first := next(own, None)) is None:
        return ""
    value = estimate_median(measured.figures[first]).value
    quantity = wording.describe_figure(first, abs(value))
    return f"{quantity.title} {quantity.show(value)}"
