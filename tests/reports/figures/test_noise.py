"""Noise: a bar for each trial, as many trials as there are, and how starts moved over the run."""

from __future__ import annotations

from typing import Any

import pytest

from reports.figures.noise import draw_noise
from testbed.analysis import read_run
from testbed.results import Metric, RunFolder, Trial

WriteRun = Any


def run_of(write_run: WriteRun, trials: list[Trial]) -> Any:
    path = write_run(platforms=("container",), starts=0, ramps=0, blocks=0, extra=trials)
    return read_run(RunFolder.open(path))


def start(number: int, ready_s: float, steal: float, *disturbances: str) -> Trial:
    metrics = (Metric("ready", ready_s, "s"),)
    window = {"steal": steal, "pressure_io": 0.0}
    return Trial(number, number, "container", "start", "ok", "", {}, metrics, None, "", window, disturbances)


def test_the_greatest_disturbance_fills_its_row(write_run: WriteRun) -> None:
    trials = [start(1, 1.0, 0.2, "stolen"), start(2, 1.1, 0.1), start(3, 0.9, 0.0)]
    windows, drift = draw_noise(run_of(write_run, trials))
    assert windows.markup.count("ink-bar") == 2, "nothing is no bar"
    assert 'height="24" class="ink-bar"' in windows.markup and 'height="12" class="ink-bar"' in windows.markup
    assert "20.0 %" in windows.markup and "1 of 3" in windows.markup and "waited for the disk" in windows.markup
    assert "used by other programs" not in windows.markup, "that was not recorded"
    assert drift.alt == "Deviation of each start from its platform's median: container within 10%."


@pytest.mark.no_cover
def test_very_many_trials_are_drawn_as_few_bars(write_run: WriteRun) -> None:
    trials = [start(n, 1.0 + n % 7 / 100, 0.9 if n == 2500 else 0.01) for n in range(1, 3001)]
    windows, drift = draw_noise(run_of(write_run, trials))
    assert 100 <= windows.markup.count("ink-bar") <= 240
    assert windows.markup.count('height="24" class="ink-bar"') == 1, "a single disturbed trial is not averaged away"
    assert "A bar is the most of 13 trials" in windows.caption
    assert drift.markup.count('<use href="#s') == 150


def test_a_run_that_recorded_no_noise_has_none_drawn(write_run: WriteRun) -> None:
    trial = Trial(1, 1, "container", "start", "ok", metrics=(Metric("ready", 1.0, "s"),))
    assert draw_noise(run_of(write_run, [trial])) == []
