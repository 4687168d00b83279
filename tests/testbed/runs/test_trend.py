"""Which run changed a figure: two detectors have to agree."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from runtime.errors import UsageError
from testbed.results import Metric, Trial
from testbed.runs import trend
from testbed.runs.trend import (
    DETECTORS,
    FEWEST_RUNS,
    Shift,
    find_every_change,
    find_shifts,
    find_trends,
    read_trends,
)

MakeRun = Any


def noisy(center: float, n: int, spread: float = 0.02, seed: int = 1) -> list[float]:
    chance = random.Random(seed)
    return [center * chance.lognormvariate(0, spread) for _ in range(n)]


def start(value: float, number: int = 1) -> Trial:
    return Trial(number, number, "container", "start", "ok", metrics=(Metric("ready", value, "s"),))


@pytest.mark.parametrize("name", DETECTORS)
def test_each_detector_sees_a_step(name: str) -> None:
    assert DETECTORS[name]([*noisy(1.0, 12), *noisy(1.2, 10, seed=2)]) == [12]


def test_both_see_a_step_and_its_size_is_that_of_the_medians() -> None:
    (shift,) = find_shifts([*noisy(1.0, 12), *noisy(1.2, 10, seed=2)])
    assert shift.index == 12
    assert shift.change == pytest.approx(0.2, abs=0.03)


def test_chance_is_no_change() -> None:
    """A hundred series of nothing but noise; at most one may fool both."""
    assert sum(bool(find_shifts(noisy(1.0, 20, 0.05, seed))) for seed in range(100)) <= 1


def test_what_one_detector_sees_alone_is_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    values = noisy(1.0, 12)
    monkeypatch.setattr(trend, "DETECTORS", {"one": lambda v: [4, 8], "other": lambda v: [9]})
    assert [shift.index for shift in find_shifts(values)] == [8]


@pytest.mark.parametrize(
    "values",
    [
        [1.0] * 30,
        [0.0] * 30,
        [1e18, 1e-18] * 15,
        [1e-300] * 15 + [2e-300] * 15,
        [*[1.0] * 10, 100.0, *[1.0] * 10],
        [-1.0, 1.0] * 20,
    ],
)
def test_odd_series_have_an_answer(values: Sequence[float]) -> None:
    for shift in find_shifts(values):
        assert shift.change is None or abs(shift.change) < 1e40


def test_an_outlier_is_no_change() -> None:
    assert find_shifts([*noisy(1.0, 10), 3.0, *noisy(1.0, 10, seed=2)]) == ()


def test_a_long_series_is_searched_in_windows() -> None:
    """Otava's second window once found its changes outside of the series."""
    values = [*noisy(1.0, 60), *noisy(1.3, 60, seed=2), *noisy(0.9, 60, seed=3)]
    assert [shift.index for shift in find_shifts(values)] == [60, 120]


def test_in_instruction_time_every_difference_is_a_change() -> None:
    assert find_every_change([1.0, 1.0, 2.0, 2.0, 1.5]) == (Shift(2, 1.0, 2.0), Shift(4, 2.0, 1.5))


def make_series(make_run: MakeRun, values: Sequence[float], **changes: Any) -> list[Any]:
    return [
        make_run(
            [start(value)], started=f"2026-03-{day:02}T00:00:00+00:00", source={"commit": f"{day:02}" * 20}, **changes
        )
        for day, value in enumerate(values, 1)
    ]


def test_the_run_and_the_commit_are_named(make_run: MakeRun) -> None:
    runs = make_series(make_run, [*noisy(1.0, 9), *noisy(1.4, 9, seed=2)])
    random.Random(4).shuffle(runs)
    (found,) = find_trends(runs)
    assert not found.too_few and not found.exact
    (series,) = found.series
    (shift,) = series.shifts
    assert found.points[series.runs[shift.index]].run == "r010"
    assert found.points[series.runs[shift.index]].commit == "10" * 6


def test_few_runs_are_too_few(make_run: MakeRun) -> None:
    (found,) = find_trends(make_series(make_run, [1.0] * (FEWEST_RUNS - 1)))
    assert found.too_few


def test_runs_of_other_experiments_and_hosts_are_other_trends(make_run: MakeRun) -> None:
    runs = [
        *make_series(make_run, [1.0, 1.0]),
        *make_series(make_run, [1.0], scenario="other"),
        *make_series(make_run, [1.0], host={"cpu": {"model": "Other"}}),
        *make_series(make_run, [1.0, 2.0, 2.0], machine={"kind": "reference"}),
    ]
    found = find_trends(runs)
    assert sorted(len(one.points) for one in found) == [1, 1, 2, 3]
    assert found[0].exact and len(found[0].series[0].shifts) == 1


def test_damaged_runs_are_left_out_and_said_to_be(make_run: MakeRun, tmp_path: Any) -> None:
    make_series(make_run, [1.0, 1.0])
    (tmp_path / "r001" / "trials.jsonl").write_text("what?\n")
    read = read_trends(tmp_path)
    assert len(read.trends[0].points) == 1
    assert len(read.left_out) == 1 and "not a trial" in read.left_out[0]
    with pytest.raises(UsageError, match="cannot read"):
        read_trends(tmp_path / "nowhere")
