"""A run as Parquet files: trials, their metrics, and all samples, for those who read it with pandas, R or DuckDB."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from runtime.errors import PrerequisiteError
from testbed.analysis import Run, build_frame, read_samples
from testbed.results import replace_file

if TYPE_CHECKING:
    import pandas as pd


class Written(Struct, frozen=True):
    """A file that was written, and how many rows it has."""

    path: Path
    rows: int


def export(run: Run, folder: Path) -> list[Written]:
    """Write ``trials.parquet`` (a row a trial), ``metrics.parquet`` (a row a figure of a trial) and, for each measure
    that has some, ``samples-MEASURE.parquet`` (the rows of all its samples, with the trial's number and platform).

    Raises PrerequisiteError where they cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PrerequisiteError(f"cannot make {folder}: {error.strerror}", "give another folder") from error
    tables = {"trials": _make_trials(run), "metrics": _with_run(run, build_frame(run.trials))}
    for measure in dict.fromkeys(trial.measure for trial in run.trials if trial.samples):
        if (samples := _make_samples(run, measure)) is not None:
            tables[f"samples-{_file_name(measure)}"] = samples
    return [_write(table, folder / f"{name}.parquet") for name, table in tables.items()]


def _file_name(measure: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in measure)[:40]


def _write(table: pd.DataFrame, path: Path) -> Written:
    replace_file(path, bytes(table.to_parquet(engine="pyarrow", index=False)))
    return Written(path, len(table))


def _with_run(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    table.insert(0, "run", run.folder.run_id)
    table.insert(1, "scenario", run.folder.scenario)
    table["clock"] = "instructions" if run.instruction_time else "host"
    return table


def _make_trials(run: Run) -> pd.DataFrame:
    import pandas as pd

    columns = ("trial", "block", "platform", "measure", "outcome", "reason", "warmup", "repeats", "beside")
    rows: list[dict[str, Any]] = [
        {name: getattr(trial, name) for name in columns} | {"disturbances": "; ".join(trial.disturbances)}
        for trial in run.trials
    ]
    return _with_run(run, pd.DataFrame(rows, columns=[*columns, "disturbances"]))


def _make_samples(run: Run, measure: str) -> pd.DataFrame | None:
    import pandas as pd

    tables = list(_read_tables(run, measure))
    return _with_run(run, pd.concat(tables, ignore_index=True)) if tables else None


def _read_tables(run: Run, measure: str) -> Iterable[pd.DataFrame]:
    for trial in run.trials:
        if trial.measure == measure and (table := read_samples(run, trial)) is not None:
            table.insert(0, "trial", trial.trial)
            table.insert(1, "platform", trial.platform)
            yield table
