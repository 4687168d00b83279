"""Finds run folders: the one that a word on the command line means, and the newest."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from runtime.errors import UsageError
from testbed.results import MANIFEST, RunFolder


def find_newest(base: Path) -> Path:
    """Return the newest run folder below ``base``: run ids begin with their time. Raises UsageError when there is
    none."""
    runs = sorted(file.parent for file in base.glob(f"*/{MANIFEST}"))
    if not runs:
        raise UsageError(f"there is no run in {base}", "make one: ./invoke bench --scenario clickme")
    return runs[-1]


def find_newest_of(base: Path, scenarios: Sequence[str]) -> list[Path]:
    """Return the newest run folder below ``base`` of each of these scenarios that has one. What is damaged is passed
    over: nobody has asked for it."""
    newest: dict[str, Path] = {}
    for path in sorted(file.parent for file in base.glob(f"*/{MANIFEST}")):
        with suppress(UsageError):
            newest[RunFolder.open(path).scenario] = path
    return [newest[scenario] for scenario in scenarios if scenario in newest]


def locate(run: str, base: Path) -> Path:
    """Return the run folder that ``run`` means: a path, the id of a run below ``base``, or (empty) the newest there."""
    if not run:
        return find_newest(base)
    return base / run if not Path(run).exists() and (base / run).exists() else Path(run)
