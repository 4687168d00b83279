"""Reads the servers of a fleet from a trace: Azure's, Alibaba's, or a CSV file of one's own.

A trace is data, whoever made it: a file is read line by line up to stated limits, and what is not as it should be is
refused with its line. The columns of AzurePublicDatasetV2's vmtable.csv and of Alibaba's machine_usage.csv and
container_usage.csv (cluster-trace-v2018) are those of their documentation; neither has a header.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Iterator, Mapping, Sequence
from io import TextIOWrapper
from itertools import chain
from pathlib import Path
from statistics import NormalDist

import numpy as np
from msgspec import Struct

from runtime.errors import UsageError
from testbed.fleet.demands import Host
from testbed.fleet.distributions import GIB, MOST_SERVERS
from testbed.fleet.servers import Servers, check_servers

MOST_ROWS, LONGEST_LINE = 20_000_000, 4096
FORMATS = ("azure", "alibaba", "csv")
# Azure's open buckets, as the analysis that comes with the data takes them.
_OPEN = {">24": 30.0, ">64": 70.0}
# Columns: of Azure's table of machines, and by their number those of Alibaba's usage of machines and of containers.
_AZURE_COLUMNS = 11
_ALIBABA: Mapping[int, tuple[int, int, int, int]] = {9: (0, 1, 2, 3), 11: (0, 2, 3, 4)}  # name, time, CPU, memory
_OWN = ("cores", "cpu", "memory_bytes")
_P95 = NormalDist().inv_cdf(0.95)
# A step so many times as long as the server's first one is a hole; Alibaba's readings are not regular.
_HOLE, _HOLE_OF_ALIBABA = 1.5, 100.0


class _Row(Struct, frozen=True):
    """A line: CPU in processors, memory in bytes; ``time`` is None in a table without times."""

    line: int
    name: str
    cores: float
    cpu: float
    memory: float
    sd: float | None = None
    time: float | None = None


def read_trace(path: Path, kind: str = "", size: Host | None = None) -> Servers:
    """Return the servers of a trace. ``kind`` is one of ``FORMATS``, or "" to tell by the first line; ``size`` is that
    of each server, where the trace has percentages only.

    Raises UsageError for a file that cannot be read, is no such trace or has a bad line, which it names.
    """
    try:
        with _open(path) as stream:
            rows = _read_lines(path, stream)
            first = next(rows, None)
            if first is None:
                raise UsageError(f"{path}: the file is empty", "give a trace with a line for each server")
            kind = kind or _tell(path, first[1])
            return _make_servers(path, kind, first, rows, size)
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise UsageError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}", "give a trace"
        ) from error


def _open(path: Path) -> TextIOWrapper:
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file", "give a trace, or one of talk, azure, application")
    if path.suffix == ".gz":
        return TextIOWrapper(gzip.GzipFile(path), encoding="utf-8", errors="replace", newline="")
    return path.open(encoding="utf-8", errors="replace", newline="")


def _read_lines(path: Path, stream: TextIOWrapper) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each line that is not empty, with its number."""
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise UsageError(f"{path}:{number}: the line is longer than {LONGEST_LINE} characters", "give a trace")
        if number > MOST_ROWS:
            raise UsageError(f"{path}: more than {MOST_ROWS} lines", "give a part of it")
        if line.strip():
            try:
                yield number, next(csv.reader([line]))
            except csv.Error as error:
                raise UsageError(f"{path}:{number}: {error}", "give cells separated by commas") from error


def _tell(path: Path, cells: Sequence[str]) -> str:
    """Return what kind of trace has such a first line."""
    names = {cell.strip().lower() for cell in cells}
    if names >= {*_OWN}:
        return "csv"
    if len(cells) == _AZURE_COLUMNS and not _is_number(cells[8]):
        return "azure"
    if len(cells) in _ALIBABA and _is_number(cells[_ALIBABA[len(cells)][1]]):
        return "alibaba"
    raise UsageError(
        f"{path}:1: neither Azure's nor Alibaba's columns, nor a header with {', '.join(_OWN)}",
        "name what it is with --format; for one of your own: name,cores,cpu,memory_bytes, and cpu_sd or t_s if known",
    )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _make_servers(
    path: Path, kind: str, first: tuple[int, list[str]], rest: Iterator[tuple[int, list[str]]], size: Host | None
) -> Servers:
    if kind not in FORMATS:
        raise UsageError(f"--format {kind}: there is no such format of a trace", ", ".join(FORMATS))
    if kind == "csv":
        return _collect(path, _read_own(path, first[1], rest), _HOLE, ("CPU use and memory as the file has them",))
    lines = chain((first,), rest)
    if kind == "azure":
        notes = (
            "CPU use: avgcpu of each machine, of all its processors; >24 processors count as 30, >64 GiB as 70",
            "standard deviation: p95maxcpu, a percentile of maxima, taken as that of the load, which is too much",
            "all memory of a machine counts as needed; machines that never lived at the same time are packed together",
        )
        return _collect(path, (_read_azure(path, *one) for one in lines), _HOLE, notes)
    if size is None:
        raise UsageError(f"{path}: Alibaba's usage is in percent; of what?", "give --server, such as 96c,512G")
    shown = f"{size.cores:g} processors and {size.memory_bytes / GIB:.4g} GiB"
    shares = (f"percentages are of {shown} (--server)", "memory: the most that a server used")
    return _collect(path, (_read_alibaba(path, size, *one) for one in lines), _HOLE_OF_ALIBABA, shares)


def _parse(path: Path, line: int, what: str, text: str, low: float = 0.0, high: float = 1e18) -> float:
    """Return a cell's number. Raises UsageError that names the line for an empty cell, and for what is no such
    number."""
    if not text.strip():
        raise UsageError(f"{path}:{line}: a hole: no {what}", "leave the server out, or fill it in")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and low <= value <= high):
        raise UsageError(f"{path}:{line}: {what} is {text.strip()[:40]!r}", f"a number from {low:g} to {high:g}")
    return value


def _read_azure(path: Path, line: int, cells: list[str]) -> _Row:
    if len(cells) != _AZURE_COLUMNS:
        raise UsageError(f"{path}:{line}: {len(cells)} columns", f"{_AZURE_COLUMNS}, as Azure's vmtable.csv has")
    created = _parse(path, line, "vmcreated", cells[3])
    if _parse(path, line, "vmdeleted", cells[4]) < created:
        raise UsageError(f"{path}:{line}: the machine was deleted before it was created", "leave it out")
    cores = _parse(path, line, "vmcorecountbucket", str(_OPEN.get(cells[9].strip(), cells[9])), low=0.01)
    memory = _parse(path, line, "vmmemorybucket", str(_OPEN.get(cells[10].strip(), cells[10])), low=0.01)
    mean = _parse(path, line, "avgcpu", cells[6], high=100) / 100
    p95 = _parse(path, line, "p95maxcpu", cells[7], high=100) / 100
    return _Row(line, cells[0][:60], cores, max(mean, 1e-4) * cores, memory * GIB, max(0.0, p95 - mean) / _P95 * cores)


def _read_alibaba(path: Path, size: Host, line: int, cells: list[str]) -> _Row:
    if len(cells) not in _ALIBABA:
        raise UsageError(f"{path}:{line}: {len(cells)} columns", "9 of machine_usage.csv, or 11 of container_usage.csv")
    name, time, cpu, memory = (cells[column] for column in _ALIBABA[len(cells)])
    return _Row(
        line,
        name[:60],
        size.cores,
        _parse(path, line, "cpu_util_percent", cpu, high=100) / 100 * size.cores,
        _parse(path, line, "mem_util_percent", memory, high=100) / 100 * size.memory_bytes,
        time=_parse(path, line, "time_stamp", time),
    )


def _read_own(path: Path, head: Sequence[str], rest: Iterator[tuple[int, list[str]]]) -> Iterator[_Row]:
    """Yield the rows of a CSV file with a header: cores, cpu (processors busy), memory_bytes, and name, cpu_sd or
    t_s."""
    columns = {name.strip().lower(): index for index, name in enumerate(head)}
    if missing := [name for name in _OWN if name not in columns]:
        raise UsageError(f"{path}:1: no column {', '.join(missing)}", f"a header with {', '.join(_OWN)}")
    if "t_s" in columns and "name" not in columns:
        raise UsageError(f"{path}:1: a column t_s, but none with each server's name", "add the column name")
    for line, cells in rest:
        if len(cells) != len(head):
            raise UsageError(f"{path}:{line}: {len(cells)} columns", f"{len(head)}, as the header has")
        of = {name: cells[index] for name, index in columns.items()}
        cores, cpu, memory = (_parse(path, line, name, of[name]) for name in _OWN)
        yield _Row(
            line,
            of.get("name", f"line {line}")[:60],
            cores,
            cpu,
            memory,
            sd=_parse(path, line, "cpu_sd", of["cpu_sd"]) if "cpu_sd" in of else None,
            time=_parse(path, line, "t_s", of["t_s"]) if "t_s" in of else None,
        )


class _Series:
    """What is known so far of a server: sums over its rows, the most memory, its last time and its first step."""

    __slots__ = ("cores", "count", "memory", "sd", "step", "sum", "squares", "time")

    def __init__(self, row: _Row) -> None:
        self.cores, self.sd, self.time, self.step = row.cores, row.sd, row.time, 0.0
        self.count, self.sum, self.squares, self.memory = 1, row.cpu, row.cpu**2, row.memory

    def add(self, path: Path, row: _Row, hole: float) -> None:
        if row.time is None or self.time is None:
            raise UsageError(f"{path}:{row.line}: the server {row.name!r} is there twice", "each once, or a column t_s")
        step = row.time - self.time
        if step <= 0:
            raise UsageError(
                f"{path}:{row.line}: times are not sorted: {row.name!r} has {row.time:g} s after {self.time:g} s",
                "sort the trace by server and time",
            )
        self.step = self.step or step
        if step > hole * self.step:
            raise UsageError(
                f"{path}:{row.line}: a hole of {step:g} s in {row.name!r}, whose rows are {self.step:g} s apart",
                "fill it in, or give the part without it",
            )
        self.time, self.count = row.time, self.count + 1
        self.sum, self.squares = self.sum + row.cpu, self.squares + row.cpu**2
        self.memory = max(self.memory, row.memory)

    @property
    def deviation(self) -> float:
        """The standard deviation over time; what a table has instead, or none."""
        if self.count == 1:
            return self.sd or 0.0
        return math.sqrt(max(0.0, self.squares / self.count - (self.sum / self.count) ** 2))


def _collect(path: Path, rows: Iterator[_Row], hole: float, notes: tuple[str, ...]) -> Servers:
    """Return the servers of all rows, those of a server added up."""
    series: dict[str, _Series] = {}
    for row in rows:
        if row.name in series:
            series[row.name].add(path, row, hole)
        elif len(series) == MOST_SERVERS:
            raise UsageError(f"{path}: more than {MOST_SERVERS} servers", "give a part of it")
        else:
            series[row.name] = _Series(row)
    each = list(series.values())
    return check_servers(
        Servers(
            np.array([one.cores for one in each], dtype=float),
            np.array([one.sum / one.count for one in each], dtype=float),
            np.array([one.deviation for one in each], dtype=float),
            np.array([one.memory for one in each], dtype=float),
            f"{path}",
            notes,
            tuple(series),
        )
    )
