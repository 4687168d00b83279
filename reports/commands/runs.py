"""The tasks on runs that have been made: compare, trend, export, index, felter."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Context, task

from reports.commands.exits import reporting
from reports.commands.options import RESULTS, split_words
from runtime.errors import UsageError
from testbed.progress import print_progress

if TYPE_CHECKING:
    from testbed.runs.sides import Measured


@task(
    positional=["before", "after"],
    help={
        "before": "the baseline: a run (folder or id), a folder of runs, or several with commas",
        "after": "what is compared with it, in the same way",
        "gate": "exit with 3 when a figure got worse, with 4 when that cannot be told",
        "limit": "by how much a figure may get worse: 5% (default), or 5%,latency_p99=20%; instruction time: 0",
        "metrics": "comma-separated: judge these only (a wrong name lists all)",
        "anyway": "compare runs of other settings, and judge those of other hosts, too",
        "html": "also write a page to this file",
        "junit": "also write JUnit XML to this file: a case for each metric and platform",
        "markdown": "also write Markdown to this file (and to $GITHUB_STEP_SUMMARY where that is set)",
        "json": "print as JSON on standard output",
    },
)
@reporting
def compare(
    context: Context,
    before: str,
    after: str,
    gate: bool = False,
    limit: str = "",
    metrics: str = "",
    anyway: bool = False,
    html: str = "",
    junit: str = "",
    markdown: str = "",
    json: bool = False,
) -> int:
    """Compare two runs, or two sets of runs: what differs in what they were made of, what changed, the worst first."""
    from reports.commands.gate import Wishes, conclude
    from testbed.runs.compare import compare_sides, parse_limits
    from testbed.runs.sides import read_side

    limits = parse_limits(limit, metrics)
    comparison = compare_sides(read_side(before, RESULTS), read_side(after, RESULTS), limits, anyway)
    return conclude(comparison, Wishes(gate, html, junit, markdown, json))


@task(positional=["folder"], help={"folder": "a folder of runs", "json": "print as JSON on standard output"})
@reporting
def trend(context: Context, folder: str, json: bool = False) -> int:
    """Say which run, and which commit, changed which figure: of all runs in a folder, by the vote of two detectors."""
    from reports.runs.trends import as_json, describe_trends
    from runtime.output import printable
    from testbed.runs.trend import read_trends

    trends = read_trends(Path(folder))
    if not trends.trends and not trends.left_out:
        raise UsageError(f"there is no run in {folder}", "give a folder of runs, such as results")
    if json:
        print(json_module.dumps(as_json(trends), indent=2, allow_nan=False))
    else:
        for line in describe_trends(trends):
            print(printable(line))
    return 0


@task(help={"folder": "a folder of runs (default: results/)"})
@reporting
def index(context: Context, folder: str = "") -> int:
    """Write index.html into a folder of runs: each run with its headline figures and its report."""
    from reports.index import write_index

    path, count = write_index(Path(folder) if folder else RESULTS)
    print(f"{path}: {count} run{'' if count == 1 else 's'}")
    return 0


def _exporters() -> Mapping[str, Callable[[Sequence[Measured]], bytes]]:
    from reports.exports import junit, openmetrics, tables

    def of_one(export_run: Callable[..., bytes]) -> Callable[..., bytes]:
        def export_first(runs: Sequence[Measured]) -> bytes:
            if len(runs) > 1:
                raise UsageError(f"this format is of one run, not of {len(runs)}", "name a single run")
            return export_run(runs[0])

        return export_first

    return {
        "junit": of_one(junit.export_run),
        "openmetrics": of_one(openmetrics.export_run),
        "bmf": of_one(tables.export_bencher),
        "otava": tables.export_otava,
        "csv": tables.export_csv,
    }


@task(
    positional=["run"],
    help={
        "run": "a run (folder or id); for otava and csv also a folder of runs, or several with commas",
        "format": "junit, openmetrics, bmf (Bencher), otava, csv or parquet",
        "out": "the file (default: standard output)",
        "parquet": "write the run's trials, metrics and samples as Parquet files into this folder",
    },
)
@reporting
def export(context: Context, run: str, format: str = "", out: str = "", parquet: str = "") -> int:
    """Write a run's figures in the format of another tool."""
    from testbed.results import replace_file
    from testbed.runs.sides import read_side

    if format == "parquet" and not parquet:
        parquet, out, format = out, "", ""
        if not parquet:
            raise UsageError("export --format parquet: into which folder?", "give --parquet DIR")
    exporters = _exporters()
    if format not in exporters and (format or not parquet):
        raise UsageError(
            f"export --format {format or '(none)'}: there is no such format", f"{', '.join(exporters)}, parquet"
        )
    runs = read_side(run, RESULTS)
    if parquet:
        from reports.exports.parquet import export as export_parquet

        if len(runs) > 1:
            raise UsageError(f"--parquet is of one run, not of {len(runs)}", "name a single run")
        for written in export_parquet(runs[0].run, Path(parquet)):
            print_progress(f"{written.path}: {written.rows} rows")
    if format:
        content = exporters[format](runs)
        if out:
            replace_file(Path(out), content)
            print_progress(f"{out}: {len(content)} bytes")
        else:
            sys.stdout.write(content.decode())
    return 0


@task(
    help={
        "runs": "run folders, or their ids in results/, comma-separated (default: the newest of each scenario there)",
        "json": "print as JSON",
    }
)
@reporting
def felter(context: Context, runs: str = "", json: bool = False) -> int:
    """Print the table of Felter et al. (2014), made again of runs of hpc, net, disk, kv and db."""
    from rich.console import Console

    from reports import felter
    from testbed.analysis import read_run
    from testbed.results import RunFolder
    from testbed.run_folders import find_newest_of, locate

    paths = [locate(run, RESULTS) for run in split_words(runs)] or find_newest_of(RESULTS, tuple(felter.FIGURES))
    read = [read_run(RunFolder.open(path)) for path in paths]
    if not felter.make_rows(read):
        raise UsageError(
            f"none of {len(read)} runs has a figure of the table",
            f"measure one: ./invoke bench --scenario hpc; the others: {', '.join(felter.FIGURES)}",
        )
    if json:
        print(json_module.dumps(felter.as_json(read), indent=2))
        return 0
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    for note in felter.list_notes(read):
        console.print(f"Note: {note}", style="yellow", markup=False)
    console.print(felter.make_table(read))
    console.print(felter.LEGEND, style="dim", markup=False)
    return 0
