"""Patterns beside another way to match them: the regular expression that moby/patternmatcher makes of each."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable

import pytest

from runtime.builder.patterns import Pattern


def as_regular_expression(pattern: str) -> Callable[[str], bool]:
    """The kinds of moby: the same text, a beginning, an end, or an expression."""
    if not any(wild in pattern for wild in "*?"):
        return pattern.__eq__
    first, rest = pattern[:2], pattern[2:]
    if first == "**" and not any(wild in rest for wild in "*?"):
        return lambda name: name.endswith(rest) or (rest.startswith("/") and name == rest[1:])
    expression = ""
    for piece in re.findall(r"\*\*/?|.", pattern, re.DOTALL):
        expression += {"**": "(.*/)?", "**/": "(.*/)?", "*": "[^/]*", "?": "[^/]"}.get(piece, re.escape(piece))
    expression = re.sub(r"\(\.\*/\)\?$", ".*", expression)
    return lambda name: re.fullmatch(expression, name) is not None


def is_match(pattern: Pattern, name: str) -> bool:
    return pattern.is_match(pattern.after(pattern.start, name))


def test_random_patterns_agree_with_regular_expressions() -> None:
    choice = random.Random(1).choice
    for _ in range(10_000):
        text = os.path.normpath("".join(choice("ab*?/.*") for _ in range(choice(range(1, 9)))).lstrip("/") or "a")
        pattern, expected = Pattern(text), as_regular_expression(text)
        for _ in range(6):
            name = "/".join("".join(choice("ab.") for _ in range(choice((1, 2, 3)))) for _ in range(choice((1, 2, 3))))
            assert is_match(pattern, name) == expected(name), (text, name)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        # From the tests of Go's filepath.Match and of moby/patternmatcher.
        ("a*b*c*d*e*/f", "axbxcxdxexxx/f", True),
        ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", False),
        ("a*b?c*x", "abxbbxdbxebxczzy", False),
        ("ab[^e-g]", "abc", True),
        ("ab[^b-d]", "abc", False),
        ("a[^a]b", "a\u263ab", True),
        ("[a-\u03b6]*", "\u03b1", True),
        ("[\\]a]", "]", True),
        ("[x\\-]", "-", True),
        ("[\\-x]", "a", False),
        ("**/dir2/**", "dir/dir2/dir3/file", True),
        ("**file", "dir/dir/file", True),
        ("**/.foo", "bar.foo", False),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", True),
        ("abc/**", "abc", False),
        ("a\\\\", "a\\", True),
    ],
)
def test_patterns(pattern: str, name: str, matches: bool) -> None:
    assert is_match(Pattern(pattern), name) == matches


@pytest.mark.parametrize(
    "text", ["[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "[a-", "[\\"]
)
def test_malformed_patterns(text: str) -> None:
    with pytest.raises(ValueError, match=r"class|backslash"):
        Pattern(text)
