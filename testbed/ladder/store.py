"""Writes and reads ``ladder.json``, the record of a run of the ladder. Who reads one trusts nothing of its writer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.files import check_inside, read_bounded
from testbed.ladder.model import FILE, FORMAT, Ladder
from testbed.results import replace_file
from testbed.run_folders import locate

# A run of 20 rungs with 100 probes each takes some 600 KiB.
MOST_BYTES = 32 << 20
# No figure of a ladder is larger: what is comes from a damaged file.
_LARGEST = 1e18


class _Version(Struct):
    """What of a record is read before all else."""

    format: int = 0


def write_ladder(folder: Path, ladder: Ladder) -> Path:
    """Write a run's record, whole or not at all; return its path. Raises PrerequisiteError where nothing can be
    written."""
    path = folder / FILE
    replace_file(path, msgspec.json.format(msgspec.json.encode(ladder), indent=1) + b"\n")
    return path


def encode_results(ladder: Ladder) -> bytes:
    """Return what came of a run, as JSON: its record without what is another's each time it is run again, whatever it
    finds (id, time, host)."""
    return msgspec.json.encode(
        replace(ladder, id="", started="", host={}, missing=(), took_s=0.0, source={}, versions={}, machine={})
    )


def read_ladder(folder: Path) -> Ladder:
    """Return the record in a run's folder. Raises UsageError for one that is not there, damaged, or of a newer
    format."""
    path = folder / FILE
    check_inside(path, folder)
    return decode_ladder(read_bounded(path, MOST_BYTES), str(path))


def decode_ladder(content: bytes, path: str) -> Ladder:
    """Return the record in these bytes, which ``path`` is called by. Raises UsageError as ``read_ladder``."""
    try:
        version = msgspec.json.decode(content, type=_Version).format
        if not 1 <= version <= FORMAT:
            given = f"the format {version}; this testbed reads up to {FORMAT}"
            raise UsageError(f"{path} has {given}", "read it with the testbed that wrote it, or a newer one")
        ladder = msgspec.json.decode(content, type=Ladder)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError(f"{path} is damaged: {error}", "restore it, or run the ladder again") from error
    if any(not math.isfinite(value) or abs(value) > _LARGEST for value in _list_numbers(ladder)):
        raise UsageError(f"{path} is damaged: a figure in it is none", "restore it, or run the ladder again")
    return ladder


def _list_numbers(ladder: Ladder) -> Iterator[float]:
    yield ladder.took_s
    for cost in ladder.costs:
        yield from cost.values
    for step in ladder.steps:
        yield from step.values_us
    for pressure in ladder.pressures:
        yield from pressure.figures.values()


def find_ladder(run: str, base: Path) -> Path:
    """Return the folder that ``run`` means: a path, an id below ``base``, or (empty) that of the newest ladder there.
    Raises UsageError where there is none."""
    if run:
        return locate(run, base)
    runs = sorted(file.parent for file in base.glob(f"*/{FILE}"))
    if not runs:
        raise UsageError(f"there is no run of the ladder in {base}", "make one: ./invoke ladder")
    return runs[-1]
