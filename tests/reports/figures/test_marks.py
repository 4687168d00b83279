"""Marks: what comes from outside is escaped, and platforms look different."""

from __future__ import annotations

import math
from pathlib import Path

from reports.figures.marks import assign_looks, define_symbols, element, number, path, percent, words
from reports.theme import HATCHES, HUES, MARKERS
from testbed.analysis import Platform, Run
from testbed.results import RunFolder


def test_what_comes_from_outside_is_escaped() -> None:
    assert words("<b>&", 0.5, 3, class_='"x"') == '<text x="50%" y="3" class="&#34;x&#34;">&lt;b&gt;&amp;</text>'
    assert element("div", "a", title=None, aria_hidden="true") == '<div aria-hidden="true">a</div>'


def test_coordinates_are_numbers() -> None:
    assert [number(value) for value in (1.0, 0.126, math.nan, math.inf)] == ["1", "0.13", "0", "0"]
    assert percent(1 / 3) == "33.33%"
    assert path([(0, 1), (1, 2)], "line", steps=True) == (
        '<path d="M0 1H1000V2" class="line" vector-effect="non-scaling-stroke"/>'
    )
    assert path([], "line") == ""


def test_every_hue_has_a_hatch_of_its_own() -> None:
    assert len(HATCHES) == len(HUES) == len(set(HATCHES)) and len(set(MARKERS)) == len(MARKERS)
    symbols = define_symbols()
    assert all(f'id="h{at}"' in symbols for at in range(len(HUES)))
    assert all(f'id="m{at}"' in symbols and f'id="s{at}"' in symbols for at in range(len(MARKERS)))


def test_no_two_of_many_platforms_look_the_same() -> None:
    names = ("container", "vm", *(f"kind-{number}" for number in range(50)))
    platforms = tuple(Platform(name, name, False, {}) for name in names)
    assigned = assign_looks(Run(RunFolder(Path(), {}), {}, (), platforms))
    assert list(assigned) == list(names)
    assert len({(look.hue, look.marker) for look in assigned.values()}) == len(names)
    assert len({assigned[name].hue for name in names[:8]}) == 8
