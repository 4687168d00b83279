"""Splitting and expanding as Docker's builder does."""

from __future__ import annotations

import time

import pytest

from runtime.builder.words import expand, split

VARIABLES = {"NAME": "value", "EMPTY": "", "DIR": "/srv"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$NAME", "value"),
        ("${NAME}s", "values"),
        ("$NAME.txt", "value.txt"),
        ("$UNSET-", "-"),
        ("${UNSET:-else}", "else"),
        ("${EMPTY:-else}", "else"),
        ("${UNSET:-$DIR/x}", "/srv/x"),
        ("${UNSET:-${UNSET:-deep}}", "deep"),
        ("${NAME:+set}", "set"),
        ("${UNSET:+set}", ""),
        (r"\$NAME", "$NAME"),
        ("'$NAME'", "$NAME"),
        ('"$NAME and more"', "value and more"),
        (r'"a\"b"', 'a"b'),
        (r"a\ b", "a b"),
        ("costs 5$", "costs 5$"),
        ("$1$@x", "x"),
        ("a\\", "a"),
        (r'"a\b"', r"a\b"),
        ("${UNSET:-'}'}", "}"),
        ("${UNSET:-\\}}", "}"),
        ("it}s", "it}s"),
        ('""', ""),
    ],
)
def test_expand(text: str, expected: str) -> None:
    assert expand(text, VARIABLES) == expected


@pytest.mark.parametrize(
    "text",
    ["${NAME", "${NAME:", "${NAME=x}", "${NAME:=x}", "${}", "${:-x}", "${NAME:-x", "${", "${NAME/x}", "${NAME//"],
)
def test_expand_refuses_other_forms(text: str) -> None:
    with pytest.raises(ValueError, match=r"\$"):
        expand(text, VARIABLES)


def test_split_keeps_quoted_blanks_together() -> None:
    assert split(r"""A=1  B="two words" C='three more words' D=four\ too""") == (
        "A=1",
        'B="two words"',
        "C='three more words'",
        r"D=four\ too",
    )


def test_split_refuses_an_open_quote() -> None:
    with pytest.raises(ValueError, match="not closed"):
        split('A="1')


def test_another_escape_character() -> None:
    assert split("a` b c\\ d", "`") == ("a` b", "c\\", "d")
    assert expand('a` `$NAME \\$NAME "`""', VARIABLES, "`") == 'a $NAME \\value "'


@pytest.mark.parametrize("text", ['"a', "'a", 'a"$NAME', "${UNSET:-'a}", '"a\\'])
def test_an_open_quote_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="not closed"):
        expand(text, VARIABLES)


@pytest.mark.parametrize("text", ["$BIG" * 500_000, '"' + "$BIG" * 500_000 + '"', "${A:-" * 200_000, "x" * 2**20])
def test_what_is_made_is_bounded(text: str) -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"longer than 131072|nested more than"):
        expand(text, {"BIG": "x" * 1000})
    assert time.monotonic() - began < 2


def test_long_words_take_time_as_they_are_long() -> None:
    began = time.monotonic()
    assert split("x" * 500_000 + " '" + "y" * 500_000 + "'")[1][0] == "'"
    assert len(expand("${A:+" * 50 + "x" * 100_000 + "}" * 50, {"A": "1"})) == 100_000
    assert time.monotonic() - began < 5
