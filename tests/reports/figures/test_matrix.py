"""Figures of rows and columns: which texts of an axis have room."""

from __future__ import annotations

import itertools

import pytest

from reports.figures.matrix import choose_texts
from reports.figures.scales import Scale, choose_scale


def test_texts_do_not_touch() -> None:
    """As those of 0.02 and 0.1 s did, in six columns, the first of which begins at its tick rather than around it."""
    scale = choose_scale([0.0235, 4.33])
    assert [text for _, text in scale.ticks(4)] == ["0.02", "0.1", "1", "5"]
    assert [one.text for one in choose_texts(scale, 4, 100)] == ["0.02", "1", "5"]
    assert [one.text for one in choose_texts(scale, 4, 250)] == ["0.02", "0.1", "1", "5"]


@pytest.mark.parametrize("low", [0.0, 0.003, 0.9, 70.0, 1234.5])
@pytest.mark.parametrize("factor", [1.0, 1.3, 7.0, 30.0, 4e3, 1e6])
@pytest.mark.parametrize("width_px", [60.0, 100.0, 160.0, 500.0])
def test_texts_stay_apart_and_on_their_axis(low: float, factor: float, width_px: float) -> None:
    scale = choose_scale([low, (low or 1) * factor])
    texts = choose_texts(scale, 4, width_px)
    assert texts
    ends = []
    for one in texts:
        width = len(one.text) * 7 / width_px
        begin = one.x - {"start": 0, "middle": width / 2, "end": width}[one.anchor]
        ends.append((begin, begin + width))
    assert all(after[0] >= before[1] for before, after in itertools.pairwise(ends))


def test_an_axis_without_a_span_has_one_text() -> None:
    assert [one.text for one in choose_texts(Scale("linear", 1.0, 1.0), 4, 100)] == ["1"]
