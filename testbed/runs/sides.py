"""Reads the sides of a comparison: a run, or several runs of the same experiment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from msgspec import Struct

from runtime.errors import UsageError
from testbed.analysis import Run, read_run
from testbed.pairs import find_noise_floor
from testbed.results import MANIFEST, RunFolder
from testbed.run_folders import locate
from testbed.runs.figures import Figure, count_failures, list_figures
from testbed.runs.fingerprint import list_differences, list_obstacles

# The most runs of one side, of a trend, or on an index page: what a nightly job makes in some three years.
MOST_RUNS = 1000


class Measured(Struct, frozen=True):
    """A run with its figures: what each was in each trial."""

    run: Run
    figures: dict[Figure, tuple[float, ...]]

    @property
    def run_id(self) -> str:
        return self.run.folder.run_id

    @property
    def failures(self) -> dict[tuple[str, str], tuple[int, int]]:
        """How many trials failed and how many ended, by platform and measure."""
        return count_failures(self.run)

    def find_noise_floor(self, figure: Figure) -> float | None:
        """Return how far apart, relative, a platform that was measured twice in this run is from itself (A/A) in the
        figure's metric; None where none was."""
        floor = find_noise_floor(self.run, figure.measure, figure.metric, figure.rate_per_s or figure.mix or None)
        return floor.spread if floor else None


def measure(path: Path) -> Measured:
    """Read a run folder and its figures. Raises UsageError when it is none, or damaged."""
    run = read_run(RunFolder.open(path))
    return Measured(run, list_figures(run))


def list_folders(base: Path) -> list[Path]:
    """Return the run folders directly below ``base`` in the order of their names, which begin with their time.

    Raises UsageError when there are more than MOST_RUNS.
    """

    def scan() -> Iterator[Path]:
        with os.scandir(base) as entries:
            for entry in entries:
                if os.path.lexists(os.path.join(entry.path, MANIFEST)):  # noqa: PTH118 # names that no file can have
                    yield Path(entry.path)

    try:
        folders = list(islice(scan(), MOST_RUNS + 1))
    except OSError as error:
        raise UsageError(f"cannot read {base}: {error.strerror}", "give a folder of runs, such as results/") from error
    if len(folders) > MOST_RUNS:
        raise UsageError(f"{base} has more than {MOST_RUNS} runs", "move the older ones to another folder")
    return sorted(folders)


def find_side(named: str, base: Path) -> list[Path]:
    """Return the run folders that a side's name means: a run, a folder of runs, or several of these with commas."""
    folders: list[Path] = []
    for name in filter(None, (one.strip() for one in named.split(","))):
        path = locate(name, base)
        below = list_folders(path) if path.is_dir() and not os.path.lexists(path / MANIFEST) else []
        folders += below or [path]
    if not folders:
        raise UsageError(
            f"{named!r} names no run", "give a run folder, the id of a run in results/, or a folder of runs"
        )
    if twice := [path for path in dict.fromkeys(folders) if folders.count(path) > 1]:
        raise UsageError(f"the run {twice[0].name} is named twice on one side", "a run counts once")
    return folders


def read_side(named: str, base: Path) -> list[Measured]:
    """Read all runs of a side. Raises UsageError when one is damaged, or they are not of the same experiment."""
    side = [measure(path) for path in find_side(named, base)]
    check_same_experiment(side)
    return side


def check_same_experiment(side: Sequence[Measured]) -> None:
    """Raise UsageError when the runs of a side cannot stand for one experiment."""
    first, *others = side
    for one in others:
        if obstacles := list_obstacles(list_differences(first.run, one.run)):
            raise UsageError(
                f"{first.run_id} and {one.run_id} are no runs of one experiment: {obstacles[0]}",
                "name only runs of the same scenario, settings and clock on one side",
            )
