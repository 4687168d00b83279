"""Splitting and expanding as Docker's builder does."""

from __future__ import annotations

import pytest

from runtime.images.words import expand, split

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
    ],
)
def test_expand(text: str, expected: str) -> None:
    assert expand(text, VARIABLES) == expected


@pytest.mark.parametrize("text", ["${NAME", "${NAME%x}", "${}"])
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
