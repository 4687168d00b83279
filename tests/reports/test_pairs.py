"""What is said of trials that ran side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reports import pairs
from reports.summary import compose
from testbed.analysis import Run, read_run
from testbed.results import Metric, RunFolder, Trial

VALUES = [1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07]


def read(tmp_path: Path, sides: dict[str, Sequence[float]], *, beside: bool = False) -> Run:
    names = list(sides)
    labels = {name: {"label": name.replace("@again", " (again)")} for name in names}
    folder = RunFolder.create(tmp_path, "run", {"run": "run", "scenario": "s", "platforms": labels})
    for index, (name, values) in enumerate(sides.items()):
        other = names[1 - index] if beside else ""
        for block, value in enumerate(values, 1):
            figures = (Metric("ready", value, "s"),)
            folder.append(Trial(index * 100 + block, block, name, "start", "ok", metrics=figures, beside=other))
    return read_run(folder)


def test_the_noise_floor_is_told_beside_the_differences(tmp_path: Path) -> None:
    run = read(tmp_path, {"container": VALUES, "container@again": VALUES, "vm": [9.0] * 8})
    (sentence,) = pairs.describe(run)
    assert sentence.startswith("Noise floor, of container measured twice: first correct answer ±")
    assert "range" not in sentence and sentence in compose(run).details
    (few,) = pairs.describe(read(tmp_path / "few", {"container": VALUES[:2], "container@again": VALUES[:2]}))
    assert "(the range of few trials)" in few


def test_a_duet_is_told_with_the_number_of_its_pairs(tmp_path: Path) -> None:
    run = read(tmp_path, {"container": VALUES, "vm": [value * 1.5 for value in VALUES]}, beside=True)
    (sentence,) = pairs.describe(run)
    shown = "more (1.50 times, 95 % interval 1.50–1.50, 8 pairs)"
    assert sentence == f"vm beside container, at the same time: first correct answer {shown}."


def test_an_ordinary_run_says_nothing_of_it(tmp_path: Path) -> None:
    assert pairs.describe(read(tmp_path, {"container": VALUES, "vm": VALUES})) == []
