"""Colours: all text can be read (WCAG 2.1, AA), light and dark; the style sheet uses no colour but the theme's."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from reports import theme

STYLE = (Path(theme.__file__).parent / "templates" / "style.css.j2").read_text()
AA, AA_GRAPHICS = 4.5, 3.0
THEMES = [(theme.LIGHT, 0), (theme.DARK, 1)]


def test_the_contrast_is_that_of_the_recommendation() -> None:
    assert theme.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert theme.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01), "the known grey that just fails"
    assert theme.blend("#000000", "#ffffff", 0.5) == "#808080"


@pytest.mark.parametrize(("named", "dark"), THEMES)
def test_all_text_can_be_read(named: Mapping[str, str], dark: int) -> None:
    """Every colour of text on every surface, and every hue, which labels have, on paper and where rows are washed."""
    for text, surface in itertools.product(theme.TEXTS, theme.SURFACES):
        assert theme.contrast(named[text], named[surface]) >= AA, (text, surface)
    for pair, surface in itertools.product(theme.HUES, ("paper", "wash")):
        assert theme.contrast(pair[dark], named[surface]) >= AA, (pair, surface)


@pytest.mark.parametrize(("named", "dark"), THEMES)
def test_marks_can_be_seen(named: Mapping[str, str], dark: int) -> None:
    """WCAG 2.1, 1.4.11: the outlines of bars and markers against paper and against their own tint."""
    for pair in theme.HUES:
        tinted = theme.blend(pair[dark], named["paper"], theme.TINT)
        assert theme.contrast(pair[dark], tinted) >= AA_GRAPHICS
    assert theme.contrast(named["line"], named["paper"]) >= 2, "lines of axes: they carry no meaning of their own"


def test_the_style_sheet_knows_no_colour_but_the_themes() -> None:
    css = re.sub(r"/\*.*?\*/", "", STYLE)
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b", css) == []
    assert re.findall(r":\s*(?:white|black|red|gr[ae]y|rgb|hsl)\b", css) == []
    used = set(re.findall(r"var\(--([\w-]+)\)", css))
    known = {*theme.LIGHT, *(f"c{at}" for at in range(len(theme.HUES))), "c", "tint", "columns", "r", "k"}
    assert used <= known
    assert theme.LIGHT.keys() == theme.DARK.keys() >= {*theme.TEXTS, *theme.SURFACES}


def test_every_text_colour_of_the_style_sheet_is_one_that_is_checked() -> None:
    colours = set(re.findall(r"(?<![-\w])color:\s*var\(--([\w-]+)\)", STYLE))
    filled = set(re.findall(r"text[^{}]*\{[^}]*fill:\s*var\(--([\w-]+)\)", STYLE))
    assert colours | filled <= {*theme.TEXTS, "c"}
    grounds = set(re.findall(r"background:\s*var\(--([\w-]+)\)", STYLE))
    assert grounds <= set(theme.SURFACES)


def test_both_themes_are_in_the_page_and_paper_is_light() -> None:
    assert "@media screen and (prefers-color-scheme: dark)" in STYLE
    assert "--paper: #ffffff" in theme.write_variables(dark=False)
    assert "--paper: #12171d" in theme.write_variables(dark=True)
