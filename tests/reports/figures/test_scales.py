"""Scales: every value has a place, ticks are few and apart, damage breaks nothing."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from reports.figures.scales import Kind, Scale, choose_scale


@pytest.mark.parametrize("kind", ["linear", "root", "log", None])
@pytest.mark.parametrize("seed", range(40))
def test_every_value_has_a_place_and_ticks_are_apart(kind: Kind | None, seed: int) -> None:
    chance = random.Random(seed)
    values = [chance.lognormvariate(chance.uniform(-20, 20), chance.uniform(0, 3)) for _ in range(chance.randint(1, 9))]
    scale = choose_scale(values, kind)
    places = [scale.place(value) for value in sorted(values)]
    assert places == sorted(places) and 0 <= places[0] <= places[-1] <= 1
    ticks = scale.ticks(5)
    assert 1 <= len(ticks) <= 8
    marked = [scale.place(value) for value, _ in ticks]
    assert marked == sorted(marked)
    assert all(after - before > 0.06 for before, after in itertools.pairwise(marked))
    assert len({text for _, text in ticks}) == len(ticks)


def test_what_differs_little_is_seen_from_zero_and_what_differs_much_by_its_ratio() -> None:
    assert choose_scale([2.0, 5.0]).kind == "linear" and choose_scale([2.0, 5.0]).low == 0
    assert choose_scale([0.2, 50.0]).kind == "log"
    assert choose_scale([0.0, 50.0]).kind == "linear", "nothing has no logarithm"
    assert choose_scale([-3.0, 50.0]).low < -3


def test_a_root_axis_gives_room_to_what_is_short() -> None:
    scale = Scale("root", 0, 100)
    assert scale.place(1) == pytest.approx(0.1) and scale.place(25) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "values", [[], [math.nan], [math.inf, 1.0], [0.0], [-1.0, -2.0], [1e18, 1e-18], [1e18], [5e-324], [-1e18, 1e18]]
)
@pytest.mark.parametrize("kind", ["linear", "root", "log", None])
def test_damage_breaks_nothing(values: list[float], kind: Kind | None) -> None:
    scale = choose_scale(values, kind)
    for value in (*values, 0.0, math.nan, math.inf, -math.inf, 1e300):
        assert 0 <= scale.place(value) <= 1
    assert all(math.isfinite(value) and text for value, text in scale.ticks(5))


def test_ticks_are_round() -> None:
    assert [text for _, text in Scale("linear", 0, 0.32).ticks(5)] == ["0", "0.1", "0.2", "0.3"]
    assert [text for _, text in Scale("log", 0.1, 100).ticks(5)] == ["0.1", "1", "10", "100"]
    assert [text for _, text in Scale("root", 0, 3.2).ticks(5)] == ["0", "0.2", "1", "2"]
    assert [text for _, text in Scale("linear", 0, 25000).ticks(3)] == ["0", "10k", "20k"]
