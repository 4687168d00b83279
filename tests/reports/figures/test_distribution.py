"""Distributions: the curve ends at all, the band is that of Dvoretzky, Kiefer and Wolfowitz and covers what it says."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from reports.figures.distribution import band_width, draw_distributions, step_points
from reports.overview import make_overview
from testbed.analysis import read_run
from testbed.results import RunFolder

WriteRun = Any


def test_the_steps_are_those_of_the_empirical_distribution() -> None:
    assert step_points([3.0, 1.0, 2.0, 2.0]) == [(1.0, 0.25), (2.0, 0.5), (2.0, 0.75), (3.0, 1.0)]
    many = step_points([float(value) for value in range(10_000)])
    assert len(many) <= 300 and many[0] == (0.0, 0.0001) and many[-1] == (9999.0, 1.0)


def test_the_band_covers_the_true_curve() -> None:
    """Of 1,000 samples of a uniform distribution at most one in twenty leaves it, and not none: it is no wider than it
    must be."""
    chance = random.Random(3)
    n, missed = 20, 0
    for _ in range(1000):
        ordered = sorted(chance.random() for _ in range(n))
        furthest = max(max((at + 1) / n - value, value - at / n) for at, value in enumerate(ordered))
        missed += furthest > band_width(n)
    assert 10 <= missed <= 60
    assert band_width(100) == pytest.approx(math.sqrt(math.log(40) / 200))


def test_a_row_for_each_platform_and_a_dot_for_each_trial(write_run: WriteRun) -> None:
    run = read_run(RunFolder.open(write_run(platforms=("container", "kvm"), ramps=0, blocks=6)))
    (picture,) = draw_distributions(run, make_overview(run))
    assert picture.markup.count('class="label once"') == 2
    assert picture.markup.count("small") >= 2 * (10 + 6 + 6)
    assert "First answer, vm (KVM): 10 trials from 2." in picture.alt
    assert picture.markup.count("n = 10") == 2


def test_one_trial_has_no_distribution(write_run: WriteRun) -> None:
    run = read_run(RunFolder.open(write_run(platforms=("container",), starts=1, ramps=0, blocks=1)))
    assert draw_distributions(run, make_overview(run)) == []
