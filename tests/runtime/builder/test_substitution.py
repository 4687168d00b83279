"""Patterns in ``${NAME#pattern}`` and its like: the published examples, a shell as oracle, and time."""

from __future__ import annotations

import random
import subprocess
import time

import pytest

from runtime.builder.substitution import remove_prefix, remove_suffix, substitute
from runtime.builder.words import expand


@pytest.mark.parametrize(
    ("text", "variables", "expected"),
    [
        # Docker's "Dockerfile reference", section "Environment replacement".
        ("${str#f*b}", {"str": "foobarbaz"}, "arbaz"),
        ("${str##f*b}", {"str": "foobarbaz"}, "az"),
        ("${string%b*}", {"string": "foobarbaz"}, "foobar"),
        ("${string%%b*}", {"string": "foobarbaz"}, "foo"),
        ("${string/ba/fo}", {"string": "foobarbaz"}, "fooforbaz"),
        ("${string//ba/fo}", {"string": "foobarbaz"}, "fooforfoz"),
        # What BuildKit's own tests expect (frontend/dockerfile/shell/lex_test.go).
        ("${A-aaa} ${B-bbb} ${C-ccc}", {"A": "xxx", "B": ""}, "xxx  ccc"),
        ("${A:-aaa} ${B:-bbb} ${C:-ccc}", {"A": "xxx", "B": ""}, "xxx bbb ccc"),
        ("${A+aaa} ${B+bbb} ${C+ccc}", {"A": "xxx", "B": ""}, "aaa bbb "),
        ("${A:+aaa} ${B:+bbb} ${C:+ccc}", {"A": "xxx", "B": ""}, "aaa  "),
        ("${A?no} ${B?no}", {"A": "xxx", "B": ""}, "xxx "),
        (r"${A#()[]{\}^$.\*\?|\\}", {"A": "()[]{}^$.*?|\\x"}, "x"),
        (r"${A%%\**}", {"A": "xx**"}, "xx"),
        ("${A#*x*y}", {"A": "xxyy"}, "y"),
        ("${A#*}", {"A": "xxyy"}, "xxyy"),
        ("${A##*x}", {"A": "xxyy"}, "yy"),
        (r"${A#?\?}", {"A": "???y"}, "?y"),
        ("${A#$B}", {"A": "xxyy", "B": "x"}, "xyy"),
        ("${N:-.}${A%x}${N:-.}", {"A": "xxyy"}, ".xxyy."),
        (r"${A%%\**\*}", {"A": "a***yy*"}, "a"),
        ("${A/$N/.} - ${A//$N/.}", {"A": "/foo*/*/*.txt", "N": "\\*/"}, "/foo.*/*.txt - /foo..*.txt"),
        ("${A/$N/$R} - ${A//$N/$R}", {"A": "/a/foo/b/c.txt", "N": "/?/", "R": "/"}, "/foo/b/c.txt - /foo/c.txt"),
        (r"${A//\//\/}", {"A": "/tmp/foo.txt"}, r"\/tmp\/foo.txt"),
        ("${A///}", {"A": "xxyy"}, "xxyy"),
        ("${A/$B/ww}", {"A": "xxyy", "B": ""}, "wwxxyy"),
    ],
)
def test_published_examples(text: str, variables: dict[str, str], expected: str) -> None:
    assert expand(text, variables) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${A?it says $B}", "A: it says b"),
        ("${E:?}", "E: it must be set"),
        ("${B#\\x}", r"a pattern has \\x"),
        ("${B%\\\\\\}", "not closed"),
        ("${B#" + "x" * 1025 + "}", "a pattern of more than 1024"),
        ("${B/x}", "no second slash"),
        ("${B//}", "no second slash"),
    ],
)
def test_errors(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expand(text, {"B": "b", "E": ""})


def test_random_patterns_agree_with_a_shell() -> None:
    generator = random.Random(3)
    cases = [
        ("".join(generator.choices("aab*?", k=generator.randrange(1, 6))), "".join(generator.choices("abc", k=8)))
        for _ in range(400)
    ]
    script = (
        'while read -r p v; do printf "%s\\n" "${v#$p}" "${v##$p}" "${v%$p}" "${v%%$p}" "${v/$p/X}" "${v//$p/X}"; done'
    )
    lines = "".join(f"{pattern} {value}\n" for pattern, value in cases)
    shell = subprocess.run(["bash", "-c", script], input=lines, capture_output=True, text=True, check=True)
    ours = [
        result
        for pattern, value in cases
        for result in (
            remove_prefix(pattern, value, False),
            remove_prefix(pattern, value, True),
            remove_suffix(pattern, value, False),
            remove_suffix(pattern, value, True),
            "".join(substitute(pattern, value, "X", every=False)),
            "".join(substitute(pattern, value, "X", every=True)),
        )
    ]
    assert ours == shell.stdout.splitlines()


def test_time_grows_as_pattern_and_value_do() -> None:
    value, stars = "a" * 131_000, "*a" * 500
    began = time.monotonic()
    assert remove_prefix(stars + "b", value, True) == value
    assert remove_suffix("b" + stars, value, False) == value
    assert "".join(substitute(stars + "b", value, "", every=True)) == value
    assert remove_prefix("?" * 500 + "b", value, False) == value
    assert "".join(substitute("a?b", value, "", every=True)) == value
    with pytest.raises(ValueError, match="longer than 131072"):
        expand("${A//a/bb}", {"A": value})
    assert time.monotonic() - began < 5
