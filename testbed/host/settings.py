"""Changes settings of the whole host for a run, and restores them whatever happens.

A setting is a file of the kernel's. It is locked while it is changed, so that two runs do not put back each other's
value; the kernel drops the lock however a run dies. What was there before is noted in the run's own directory, by
which ``./invoke clean`` puts it back after a kill.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from runtime.atomic import replace_file
from runtime.errors import PrerequisiteError, TestbedError, UsageError

RECORD = "host-settings.json"
# A run notes all that it has changed in one file, whichever of its threads did.
_recording = threading.Lock()


@contextmanager
def change_settings(settings: Mapping[Path, str], lease: Path) -> Iterator[None]:
    """Within, each setting has the value given; afterwards, the one before. ``lease`` is the run's directory.

    Raises UsageError when another run has changed one of them, PrerequisiteError when one cannot be written.
    """
    with ExitStack() as undo:
        former: dict[Path, str] = {}
        for path in settings:
            undo.callback(os.close, _lock(path))
            former[path] = path.read_text().strip()
        record = lease / RECORD
        with _recording:
            replace_file(record, _encode({**former, **read_record(lease)}))
        undo.callback(_drop_record, record, former)
        for path, value in settings.items():
            undo.callback(_write, path, former[path])
            _write(path, value)
        yield


def read_record(lease: Path) -> dict[Path, str]:
    """Return what a run has noted of the settings that it changed: the values before."""
    try:
        noted = json.loads((lease / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return {Path(path): str(value) for path, value in noted.items()}


def restore_settings(lease: Path) -> None:
    """Give the settings that a dead run changed their former values. Raises TestbedError after trying all."""
    problems = []
    for path, value in read_record(lease).items():
        try:
            _write(path, value)
        except TestbedError as error:
            problems.append(error.message)
    if problems:
        raise TestbedError("; ".join(problems), "run as root")


def _encode(values: Mapping[Path, str]) -> bytes:
    return json.dumps({str(path): value for path, value in values.items()}, indent=1).encode() + b"\n"


def _drop_record(record: Path, former: Mapping[Path, str]) -> None:
    """Take from the record what has been put back."""
    with _recording:
        left = {path: value for path, value in read_record(record.parent).items() if path not in former}
        if left:
            replace_file(record, _encode(left))
        else:
            with suppress(FileNotFoundError):
                record.unlink()


def _lock(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise PrerequisiteError(
            f"change {path}: {error.strerror}", "run as root, on a kernel that has it, or choose another platform"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise UsageError(f"change {path}: another run has changed it", "wait for the end of that run") from error
    return descriptor


def _write(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError as error:
        raise PrerequisiteError(f"write {value} to {path}: {error.strerror}", "run as root") from error
