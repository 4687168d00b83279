"""Pairs of trials, and what one platform differs by from itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest

from testbed.analysis import Run, read_run
from testbed.pairs import compare_duet, find_noise_floor, list_duets, list_noise_floors, select_pairs
from testbed.results import Metric, RunFolder, Trial

BASE = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7]


def starts(platform: str, values: Sequence[float], first: int = 1, beside: str = "") -> list[Trial]:
    return [
        Trial(
            100 * first + block, block, platform, "start", "ok", metrics=(Metric("ready", value, "s"),), beside=beside
        )
        for block, value in enumerate(values, 1)
    ]


def cost(value: float) -> Metric:
    return Metric("cpu_per_request", value, "s")


def read(tmp_path: Path, trials: Sequence[Trial]) -> Run:
    labels = {name: {"label": name} for name in dict.fromkeys(trial.platform for trial in trials)}
    folder = RunFolder.create(tmp_path, "run", {"run": "run", "scenario": "s", "platforms": labels})
    for trial in trials:
        folder.append(trial)
    return read_run(folder)


def test_a_platform_measured_again_stands_beside_no_other(tmp_path: Path) -> None:
    run = read(tmp_path, [*starts("container", BASE), *starts("container@again", BASE, 2), *starts("vm", BASE, 3)])
    assert [one.name for one in run.platforms] == ["container", "vm"]
    assert [one.name for one in run.again] == ["container@again"]


def test_the_noise_floor_is_what_the_interval_of_nothing_allows(tmp_path: Path) -> None:
    again = [value * 1.02 for value in BASE]
    run = read(tmp_path, [*starts("container", BASE), *starts("container@again", again, 2)])
    (floor,) = list_noise_floors(run)
    assert (floor.platform, floor.measure, floor.metric) == ("container", "start", "ready")
    assert floor.ratio.value == pytest.approx(1.02) and floor.ratio.low < 1 < floor.ratio.high
    assert floor.spread == pytest.approx(max(floor.ratio.high - 1, 1 / floor.ratio.low - 1))
    assert find_noise_floor(run, "start", "nothing") is None


def test_a_noise_floor_is_compared_as_platforms_are(tmp_path: Path) -> None:
    """Of a host that gets slower and slower the comparisons are within blocks, and so is what they are held against."""
    drifting = [1.0 + block / 10 for block in range(12)]
    again = [value * (1.01 if block % 2 else 0.99) for block, value in enumerate(drifting)]
    run = read(tmp_path, [*starts("container", drifting), *starts("container@again", again, 2)])
    (floor,) = list_noise_floors(run)
    assert floor.spread == pytest.approx(0.01, abs=0.001)


def test_a_run_without_a_platform_measured_again_has_no_noise_floor(tmp_path: Path) -> None:
    assert list_noise_floors(read(tmp_path, starts("container", BASE))) == ()


def test_utilisation_has_a_noise_floor_at_each_rate(tmp_path: Path) -> None:
    places = product(range(1, 7), ("c", "c@again"), (10.0, 20.0))
    trials = [
        Trial(number, block, platform, "utilisation", "ok", "", {"rate_per_s": rate}, (cost(1e-3 * block),))
        for number, (block, platform, rate) in enumerate(places, 1)
    ]
    assert [floor.rate_per_s for floor in list_noise_floors(read(tmp_path, trials))] == [10.0, 20.0]


def test_a_duet_is_compared_pair_by_pair(tmp_path: Path) -> None:
    """What both have in common is in none of the ratios: here a host that gets slower and slower."""
    other = [value * 1.1 for value in BASE]
    run = read(tmp_path, [*starts("container", BASE, 1, "vm"), *starts("vm", other, 2, "container")])
    assert list_duets(run) == (("container", "vm"),)
    comparison = compare_duet(run, "start", ("container", "vm"), "ready")
    assert comparison is not None and comparison.paired and comparison.ratio is not None
    assert comparison.ratio.low == pytest.approx(1.1) and comparison.ratio.high == pytest.approx(1.1)
    assert comparison.verdict == "more"


def test_a_pair_counts_when_both_do(tmp_path: Path) -> None:
    one, other = starts("a", BASE[:3], 1, "b"), starts("b", BASE[:3], 2, "a")
    void = [Trial(1, 4, "a", "start", "void"), Trial(2, 4, "b", "start", "ok", metrics=(Metric("ready", 9.0, "s"),))]
    assert len(select_pairs(read(tmp_path, [*one, *other, *void]), "start", ("a", "b"), "ready")) == 3


def test_the_noise_floor_of_a_duet_is_that_of_its_pairs(tmp_path: Path) -> None:
    trials = [*starts("c", BASE, 1, "c@again"), *starts("c@again", [value * 1.01 for value in BASE], 2, "c")]
    (floor,) = list_noise_floors(read(tmp_path, trials))
    assert floor.spread == pytest.approx(0.01)


def test_values_without_a_ratio_have_no_noise_floor(tmp_path: Path) -> None:
    run = read(tmp_path, [*starts("c", [0.0] * 6), *starts("c@again", [1.0] * 6, 2)])
    assert list_noise_floors(run) == ()
