"""The run folder: what a run was, and every trial of it, in a form that survives a kill at any byte.

``manifest.json`` is replaced as a whole; ``trials.jsonl`` only grows, one line a trial, and a line counts from its
newline on; all else can be made again from these two and ``samples/``.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field, to_builtins

from runtime import atomic
from runtime.errors import PrerequisiteError, UsageError
from runtime.files import check_inside, read_bounded
from testbed.histograms import encode_histogram, read_histogram

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram

# The version of the run folder's format, which the manifest and each row of metrics.csv carry. It is raised when an
# older testbed could no longer read the folder right; a folder that names none has the first (docs/run-folder.md).
FORMAT = 3
MANIFEST = "manifest.json"
TRIALS = "trials.jsonl"
METRICS = "metrics.csv"
METRIC_COLUMNS = (
    "run", "trial", "block", "scenario", "platform", "measure", "metric", "value", "unit", "outcome", "clock", "warmup",
    "repeats", "beside", "format",
)  # fmt: skip
# Columns that older tables lack, and what their rows are taken to say there.
_ADDED = {"clock": "host", "warmup": "0", "repeats": "0", "beside": "", "format": "1"}
# What the quota of processor time held back: the fraction of periods, and seconds.
THROTTLED_PERIODS, THROTTLED = "throttled_periods", "throttled"
# What a trial's name has behind it in the file of its memory by part, at several steps of its ramp.
PARTS_OF_STEPS = "-parts"
# The same of what was sampled of its instances in the last window of its ramp.
INSTANCES_OF_STEP = "-instances"
# Less of the periods is in tables, and not said in words.
LEAST_HELD_BACK = 0.005
# The kind of a manifest's ``machine`` in which one instruction takes one nanosecond.
REFERENCE = "reference"
# What is read of a run folder at most: a manifest takes some 30 KiB, a trial 3 KiB, a row of metrics.csv 150 bytes.
# Who wrote the folder decides its sizes; without a limit that is also how much memory its reader takes.
MOST_MANIFEST_BYTES = 16 << 20
MOST_TRIALS_BYTES = 128 << 20
MOST_METRICS_BYTES = 256 << 20
MOST_SAMPLES_BYTES = 256 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Outcome = Literal["ok", "failed", "void", "interrupted"]
Status = Literal["running", "finished", "interrupted", "failed"]
# No figure of a host is larger: what is comes from a damaged file, and sums of such values are no numbers.
Value = Annotated[float, Meta(ge=-1e18, le=1e18)]
Number = Annotated[int, Meta(ge=0, le=10**9)]


class Metric(Struct, frozen=True):
    """One figure of a trial: ``value`` is finite, in ``unit`` (``s``, ``bytes``, ``1/s``, ``bytes/s``, ``1``)."""

    metric: str
    value: Value
    unit: str


class Trial(Struct, frozen=True):
    """One trial that ended.

    ``outcome`` is ``ok``; ``failed`` (the workload or platform did not do its part); ``void`` (the measurement
    itself was bad: a late load generator); or ``interrupted``. ``reason`` says why it is not ok, or why a ramp ended,
    ``details`` what else was said then: the last lines of every console.
    ``samples`` is the name of its time series below ``samples/``, ``histogram`` that of its latencies there. ``window``
    and ``disturbances`` are what testbed.host.noise saw while it ran.

    ``warmup``: it is on record and not counted. ``repeats`` is the number of the void or interrupted trial that it was
    done again for, 0 for none; ``beside`` the platform that ran at the same time on the same host, "" for none.
    """

    trial: Number
    block: Number
    platform: str
    measure: str
    outcome: Outcome
    reason: str = ""
    parameters: Mapping[str, float | str] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    samples: str | None = None
    details: str = ""
    window: Mapping[str, float] = field(default_factory=dict)
    disturbances: tuple[str, ...] = ()
    histogram: str | None = None
    warmup: bool = False
    repeats: Number = 0
    beside: str = ""

    @property
    def counted(self) -> bool:
        """Whether it is evidence: it ended well, and warmed nothing up for others."""
        return self.outcome == "ok" and not self.warmup

    def value(self, metric: str) -> float | None:
        """Return the value of a metric, None when the trial has no such metric."""
        return next((one.value for one in self.metrics if one.metric == metric), None)


class RunFolder:
    """A run's folder, opened by ``create`` (to write) or ``open`` (to read)."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path = path
        self.manifest = dict(manifest)

    @classmethod
    def create(cls, base: Path, run_id: str, manifest: Mapping[str, Any]) -> RunFolder:
        """Make ``base/run_id`` with a manifest that says ``running``. Raises UsageError when it exists already."""
        if not _NAME.fullmatch(run_id):
            raise ValueError(f"{run_id!r} is no name for a folder")
        path = base / run_id
        try:
            base.mkdir(parents=True, exist_ok=True)
            path.mkdir()
            for below in ("samples", "logs"):
                (path / below).mkdir()
        except FileExistsError as error:
            raise UsageError(
                f"cannot make the run folder {path}: {error.filename} exists", "use another --out"
            ) from error
        except OSError as error:
            raise _write_error(path, error) from error
        folder = cls(path, {"format": FORMAT, **manifest, "finished": None, "status": "running", "sessions": []})
        folder.begin_session(str(manifest.get("command", "")))
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Return an existing run folder. Raises UsageError when it is none, or its manifest is damaged."""
        file = path / MANIFEST
        if not os.path.lexists(file):
            what = f"has no {MANIFEST}" if path.is_dir() else "does not exist"
            raise UsageError(f"{path} is no run folder: it {what}", "give a folder below results/")
        try:
            manifest = json.loads(read_bounded(file, MOST_MANIFEST_BYTES))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{file} is damaged: {error}", "restore it; the trials next to it are intact") from error
        if isinstance(manifest, dict):
            _check_format(file, manifest.get("format", 1))
        if not isinstance(manifest, dict) or not isinstance(manifest.get("run"), str):
            raise UsageError(f"{file} is damaged: it names no run", "restore it; the trials next to it are intact")
        return cls(path, manifest)

    @property
    def run_id(self) -> str:
        return str(self.manifest.get("run", self.path.name))

    @property
    def scenario(self) -> str:
        return str(self.manifest.get("scenario", ""))

    def append(self, trial: Trial) -> None:
        """Add a trial, durably. A torn last line that a kill left is cut off first.

        Raises ValueError for a value that is not finite, PrerequisiteError when the disk is full (nothing is torn).
        """
        line = json.dumps(to_builtins(trial), allow_nan=False, ensure_ascii=False).encode(errors="replace") + b"\n"
        file = self.path / TRIALS
        try:
            with file.open("a+b", buffering=0) as stream:
                stream.seek(0)
                whole = stream.readall().rfind(b"\n") + 1
                stream.truncate(whole)
                try:
                    if stream.write(line) < len(line):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(stream.fileno())
                except OSError:
                    stream.truncate(whole)
                    raise
        except OSError as error:
            raise _write_error(file, error) from error

    def trials(self) -> tuple[Trial, ...]:
        """Return every trial that was written as a whole, in order; a torn last line is not one.

        Raises UsageError, with the line's number, when a line is damaged otherwise, and for a file of more than
        MOST_TRIALS_BYTES.
        """
        file = self.path / TRIALS
        if not os.path.lexists(file):
            return ()
        lines = read_bounded(file, MOST_TRIALS_BYTES).split(b"\n")[:-1]
        return tuple(self._parse(file, number, line) for number, line in enumerate(lines, 1))

    @staticmethod
    def _parse(file: Path, number: int, line: bytes) -> Trial:
        try:
            return msgspec.json.decode(line, type=Trial)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UsageError(f"{file}:{number}: not a trial: {error}", "remove or restore this line") from error

    def write_samples(self, name: str, header: Sequence[str], rows: Iterable[Sequence[float | str]]) -> str:
        """Write a time series as CSV and return its name below ``samples/``."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a file")
        file_name = f"{name}.csv"
        replace_file(self.path / "samples" / file_name, _csv(header, rows))
        return file_name

    def write_histogram(self, name: str, latencies: HdrHistogram, length_s: float) -> str:
        """Write a histogram of microseconds over ``length_s`` and return its name below ``samples/``."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a file")
        file_name = f"{name}.hdr"
        replace_file(self.path / "samples" / file_name, encode_histogram(latencies, length_s))
        return file_name

    def read_histogram(self, trial: Trial) -> HdrHistogram | None:
        """Return the histogram of a trial's latencies in microseconds, None when it has none or the file is gone.

        Raises UsageError, which names the file, when that is damaged, cut short, another's, or outside of the folder.
        """
        if not trial.histogram:
            return None
        if not _NAME.fullmatch(trial.histogram):
            raise UsageError(f"{self.path}: trial {trial.trial} names no histogram", "restore its line, or remove it")
        file = self.path / "samples" / trial.histogram
        check_inside(file, self.path)
        return read_histogram(file) if file.exists() else None

    def samples_path(self, trial: Trial) -> Path | None:
        """Return the file of a trial's time series; None when it has none, and for what is no file of this folder."""
        return self._sample_file(trial.samples)

    def read_samples(self, trial: Trial) -> bytes | None:
        """Return a trial's time series as it was written, CSV; None when it has none, and for what cannot be read or is
        longer than MOST_SAMPLES_BYTES."""
        path = self.samples_path(trial)
        if path is None:
            return None
        try:
            return read_bounded(path, MOST_SAMPLES_BYTES)
        except UsageError:
            return None

    def histogram_path(self, trial: Trial) -> Path | None:
        """Return the file of a trial's latencies; None when it has none, and for what is no file of this folder."""
        return self._sample_file(trial.histogram)

    def _sample_file(self, name: str | None) -> Path | None:
        if not name or not _NAME.fullmatch(name):
            return None
        path = self.path / "samples" / name
        return path if os.path.isfile(path) and not path.is_symlink() and self._keeps_its_samples else None

    @cached_property
    def _keeps_its_samples(self) -> bool:
        """Whether the folder of its samples is its own, and no link to another."""
        return (self.path / "samples").resolve() == self.path.resolve() / "samples"

    def log_path(self, instance: str) -> Path:
        """Return where an instance's console is written."""
        if not _NAME.fullmatch(instance):
            raise ValueError(f"{instance!r} is no name for a file")
        return self.path / "logs" / f"{instance}.log"

    def write_metrics(self) -> None:
        """Make metrics.csv from the trials: one row a metric; a trial without any has one row with these empty."""
        rows: list[tuple[object, ...]] = []
        clock = "instructions" if counts_instructions(self.manifest) else "host"
        for trial in self.trials():
            head = (self.run_id, trial.trial, trial.block, self.scenario, trial.platform, trial.measure)
            tail = (trial.outcome, clock, int(trial.warmup), trial.repeats, trial.beside, FORMAT)
            figures: list[tuple[object, ...]] = [(one.metric, one.value, one.unit) for one in trial.metrics]
            rows += [(*head, *figure, *tail) for figure in figures or [("", "", "")]]
        replace_file(self.path / METRICS, _csv(METRIC_COLUMNS, rows))

    def begin_session(self, command: str) -> None:
        """Put in the manifest that the run is being measured, from now on by this command. A session before that has
        no end was killed."""
        for session in self.sessions:
            if session.get("status") == "running":
                session["status"] = "killed"
        begun = {"started": _now(), "ended": None, "status": "running", "command": command}
        self.manifest |= {"finished": None, "status": "running", "sessions": [*self.sessions, begun]}
        self._write_manifest()

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """The stretches of time in which the run was measured, as the manifest has them: the first, and one for each
        time that it was resumed."""
        sessions = self.manifest.get("sessions")
        return [one for one in sessions if isinstance(one, dict)] if isinstance(sessions, list) else []

    def note(self, **figures: object) -> None:
        """Put members in the manifest that are known only later."""
        self.manifest |= figures
        self._write_manifest()

    def note_session(self, **figures: object) -> None:
        """Put members in the manifest's record of this session; on disk with its end."""
        if sessions := self.sessions:
            sessions[-1] |= figures

    def finish(self, status: Status) -> None:
        """Write metrics.csv and put the end's time (UTC) and how the run ended in the manifest."""
        self.write_metrics()
        ended = _now()
        self.note_session(ended=ended, status=status)
        self.note(finished=ended, status=status)

    def conclude(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Call ``finish`` with the status that an exception (or none) means; for ``ExitStack.push``."""
        if kind is None:
            self.finish("finished")
        else:
            self.finish("failed" if issubclass(kind, Exception) else "interrupted")
        return False

    def _write_manifest(self) -> None:
        replace_file(self.path / MANIFEST, json.dumps(self.manifest, indent=2, default=str).encode() + b"\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def counts_instructions(manifest: Mapping[str, Any]) -> bool:
    """Return whether a run's seconds count instructions: it was made in the reference machine (testbed.machine)."""
    machine = manifest.get("machine")
    return isinstance(machine, dict) and machine.get("kind") == REFERENCE


def check_base(base: Path) -> None:
    """Raise what ``RunFolder.create`` below ``base`` would raise for a place that cannot be written; nothing stays."""
    existing = next(path for path in (base.absolute(), *base.absolute().parents) if path.exists())
    try:
        Path(tempfile.mkdtemp(prefix=".testbed-", dir=existing)).rmdir()
    except OSError as error:
        raise _write_error(base, error) from error


def read_metrics(file: Path) -> list[dict[str, str]]:
    """Return the rows of a metrics.csv by column, as text; in a file that was written without a column, ``format`` is
    "1", ``clock`` "host", and every trial counts and ran alone.

    Raises UsageError when the file cannot be read, lacks a column, or has a row of a newer format.
    """
    try:
        stream = io.StringIO(read_bounded(file, MOST_METRICS_BYTES).decode(), newline="")
        reader = csv.DictReader(stream, restval="")
        missing = set(METRIC_COLUMNS) - _ADDED.keys() - set(reader.fieldnames or ())
        rows = [{**_ADDED, **row} for row in reader]
    except (ValueError, csv.Error) as error:
        raise UsageError(f"{file} is damaged: {error}", "restore it") from error
    for version in {row["format"] for row in rows}:
        _check_format(file, int(version) if re.fullmatch(r"[0-9]{1,9}", version) else version)
    if missing:
        raise UsageError(f"{file} has no column {', '.join(sorted(missing))}", f"give a run's {METRICS}")
    return rows


def _check_format(file: Path, version: object) -> None:
    """Raise UsageError unless this testbed reads that version of the format."""
    if type(version) is not int or not 1 <= version <= FORMAT:
        given = f"the format {version!r}; this testbed reads up to {FORMAT}"
        raise UsageError(f"{file} has {given}", "read it with the testbed that wrote it, or a newer one")


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, whole, also after a kill."""
    try:
        atomic.replace_file(path, content)
    except OSError as error:
        raise _write_error(path, error) from error


def _write_error(path: Path, error: OSError) -> PrerequisiteError:
    return PrerequisiteError(f"cannot write {path}: {error.strerror}", "make room there, or choose another --out")
