"""Variables in compose files: every form, nested ones, and texts that mean no good."""

from __future__ import annotations

import time

import pytest

from testbed.compose.interpolation import InterpolationError, Interpolator

VARIABLES = {"FOO": "first", "BAR": "", "A1_": "x"}
# compose-spec, 12-interpolation.md, and template_test.go of compose-go for what is nested.
FORMS = [
    *(("ok $FOO", "ok first"), ("ok ${FOO}", "ok first"), ("$FOO$BAR$FOO", "firstfirst"), ("${A1_}$A1_.b", "xx.b")),
    *(("${FOO:-def}", "first"), ("${BAR:-def}", "def"), ("${NONE:-def}", "def")),
    *(("${BAR-def}", ""), ("${NONE-def}", "def")),
    *(("${FOO:?err}", "first"), ("${BAR?err}", ""), ("${FOO:+rep}", "rep"), ("${BAR:+rep}", ""), ("${BAR+rep}", "rep")),
    *(("${NONE+rep}", ""), ("$$FOO", "$FOO"), ("$${FOO}", "${FOO}"), ("a$$", "a$"), ("$NONE", "")),
    *(("}", "}"), ("{}", "{}")),
    *(("${NONE:-${FOO}}", "first"), ("${NONE:-${BAR:-${FOO:-d}}}", "first"), ("${NONE:-a${FOO}b}c", "afirstbc")),
    *(("${FOO:+${FOO}-x}", "first-x"), ("${NONE:-:?x}", ":?x"), ("${NONE:-http://h:1/p}", "http://h:1/p")),
    *(("${NONE:-$$x}", "$x"), ("${NONE:-a b}", "a b"), ("${FOO:-${NONE:?no}}", "first"), ("${NONE:-}", "")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), FORMS)
def test_every_form(text: str, expected: str) -> None:
    assert Interpolator(VARIABLES).interpolate(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("${FOO", "has '${FOO', which is no variable"),
        ("${NONE:-x", "has ${ without its }"),
        ("$", "which is no variable"),
        ("a $ b", "which is no variable"),
        ("$(date)", "which is no variable"),
        ("${1}", "which is no variable"),
        ("${FOO!x}", "which is no variable"),
        ("${}", "which is no variable"),
        ("${NONE:?say ${FOO}}", "needs the variable NONE: say first"),
        ("${BAR:?}", "needs the variable BAR"),
        ("${NONE:-" * 50 + "}" * 50, "nests variables more than 20 deep"),
    ],
)
def test_what_is_wrong_is_said(text: str, problem: str) -> None:
    with pytest.raises(InterpolationError) as caught:
        Interpolator(VARIABLES).interpolate(text)
    assert problem in caught.value.problem


def test_what_was_used_and_what_was_missing() -> None:
    one = Interpolator(VARIABLES)
    one.interpolate("$FOO ${NONE} ${OTHER:-d} ${FOO:-${UNASKED}}")
    assert one.used == {"FOO": "first"}
    assert list(one.missing) == ["NONE"]


def test_a_value_is_not_looked_into() -> None:
    assert Interpolator({"A": "$B ${C:?x} $$"}).interpolate("$A") == "$B ${C:?x} $$"


def test_what_it_makes_is_bounded() -> None:
    began_s = time.process_time()
    with pytest.raises(InterpolationError, match="too long"):
        Interpolator({"A": "x" * 100_000}).interpolate("$A" * 500_000)
    Interpolator({}).interpolate("${A:-" * 3 + "}" * 3 + "$$" * 500_000 + "{" * 500_000)
    assert time.process_time() - began_s < 3
