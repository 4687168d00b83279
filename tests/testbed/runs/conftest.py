"""Small run folders to be compared: starts, and loads where they are asked for."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from testbed.results import RunFolder, Trial
from testbed.runs.sides import Measured, measure

MakeRun = Callable[..., Measured]
MANIFEST: dict[str, Any] = {
    "scenario": "clickme",
    "quick": False,
    "seed": 1,
    "started": "2026-03-01T12:00:00+00:00",
    "settings": {"trials": 12, "load": {"rates_per_s": [50]}},
    "source": {"commit": "a" * 40, "dirty": False},
    "host": {"cpu": {"model": "Some CPU", "processors": 2}, "kernel": "6.1.0", "load_average": [0.1]},
    "platforms": {"container": {"label": "container", "emulated": False}},
}


def write_small_run(base: Path, name: str, trials: Iterable[Trial], **changes: Any) -> Path:
    folder = RunFolder.create(base, name, {"run": name, **MANIFEST})
    for trial in trials:
        folder.append(trial)
    folder.finish("finished")
    (folder.path / "manifest.json").write_text(json.dumps({**folder.manifest, **changes}))
    return folder.path


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write a run of these trials, with these changes of its manifest, and read it again."""
    numbers = itertools.count(1)

    def make(trials: Iterable[Trial], **changes: Any) -> Measured:
        return measure(write_small_run(tmp_path, f"r{next(numbers):03}", trials, **changes))

    return make
