"""Ticks: at every width of a column those that are shown are apart, and the outermost are among them."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from reports.figures.matrix import Cell, Column, Matrix, Row, draw_matrix
from reports.figures.scales import Kind, Scale, choose_scale
from reports.figures.ticks import WIDTHS, Tick, draw_ticks, place_ticks, write_rules


def shown(ticks: list[Tick], width_px: float) -> list[Tick]:
    return [one for one in ticks if one.least_px <= width_px]


@pytest.mark.parametrize("kind", ["linear", "root", "log"])
@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("at_ends", [True, False])
def test_no_two_labels_touch_at_any_width(kind: Kind, seed: int, at_ends: bool) -> None:
    chance = random.Random(seed)
    values = [chance.lognormvariate(chance.uniform(-5, 12), chance.uniform(0, 3)) for _ in range(6)]
    scale = choose_scale(values, kind)
    labels = scale.ticks(chance.randint(2, 9))
    ticks = place_ticks(scale, labels, at_ends)
    for width_px in (*range(10, 1500, 7), *WIDTHS):
        spans = [one.span(width_px) for one in shown(ticks, width_px)]
        assert all(left[1] < right[0] for left, right in itertools.pairwise(spans)), width_px
        assert not at_ends or all(span[0] >= -30 and span[1] <= width_px + 30 for span in spans)
    assert [one.text for one in shown(ticks, 3000)] == [text for _, text in labels], "all of them where there is room"


def test_the_labels_that_overlapped_in_a_narrow_column_of_memory() -> None:
    scale = Scale("log", 20, 500)
    ticks = place_ticks(scale, [(20.0, "20"), (50.0, "50"), (100.0, "100"), (200.0, "200"), (400.0, "400")])
    assert [one.text for one in shown(ticks, 100)] == ["20", "100", "400"]
    assert [one.text for one in shown(ticks, 300)] == ["20", "50", "100", "200", "400"]


def test_the_outermost_stay_the_longest() -> None:
    ticks = place_ticks(Scale("linear", 0, 400), [(float(value), str(value)) for value in range(0, 401, 50)])
    for width_px in range(30, 600):
        texts = [one.text for one in shown(ticks, width_px)]
        assert texts[0] == "0"
        assert texts[-1] == "400" or len(texts) == 1


def test_a_label_is_at_its_tick_unless_it_would_leave_the_column() -> None:
    whole = Scale("linear", 0.5, 18.5)
    ticks = place_ticks(whole, [(1.0, "1"), (9.0, "9"), (18.0, "18000")])
    assert [one.anchor for one in ticks] == ["middle", "middle", "end"]
    assert place_ticks(Scale("linear", 0, 1), [(0.0, "0")])[0].anchor == "start"


def test_labels_at_one_place_are_one() -> None:
    ticks = place_ticks(Scale("linear", 1, 1), [(1.0, "1"), (1.0, "1"), (2.0, "2")])
    assert [one.text for one in ticks] == ["1"]
    assert place_ticks(Scale("linear", 0, 1), []) == []


def test_every_class_of_a_label_has_its_rule() -> None:
    column = Column("memory", scale=Scale("log", 20, 500), ticks=8)
    markup = draw_matrix(Matrix([column], [Row("vm")], {(0, 0): Cell(text="5")}))
    used = set(re.findall(r'class="w(\d+)"', markup))
    rules = dict(re.findall(r"@container \(max-width: ([\d.]+)px\) { \.w(\d+) { display: none } }", write_rules()))
    assert used and used <= set(rules.values())
    assert all(float(width) == int(class_) - 0.02 for width, class_ in rules.items())
    assert 'class="axis"' in markup, "what the rules ask for the width of"
    assert "class" not in draw_ticks([Tick(0, "0", "start", 0)], 5)[0]
