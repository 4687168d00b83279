from __future__ import annotations

import time

import pytest

from runtime.registry.challenges import Challenge, best, parse


def test_challenges_are_read() -> None:
    bearer = 'Bearer realm="https://a.example/token?x=1,2",service="s \\"q\\"",scope="repository:a/b:pull,push"'
    token = {"realm": "https://a.example/token?x=1,2", "service": 's "q"', "scope": "repository:a/b:pull,push"}
    assert parse(f"{bearer}, Basic realm=x") == (Challenge("bearer", token), Challenge("basic", {"realm": "x"}))
    assert parse("Negotiate, BASIC Realm = x") == (Challenge("negotiate", {}), Challenge("basic", {"realm": "x"}))


def test_a_token_is_better_than_a_password_and_others_are_unknown() -> None:
    both = parse('Basic realm="a", Bearer realm="b"')
    found = best(both)
    assert found is not None and found.scheme == "bearer"
    assert best(parse("Negotiate, Digest x=y")) is None
    assert best(()) is None


@pytest.mark.parametrize("header", ["", ",,,", '"', "=", "a=b", "\0", "é é", 'x="\\'])
def test_a_damaged_header_asks_for_nothing(header: str) -> None:
    assert parse(header) == ()


def test_what_is_whole_before_the_damage_counts() -> None:
    assert parse("Bearer ,") == (Challenge("bearer", {}),)
    assert parse('Bearer realm="') == (Challenge("bearer", {"realm": ""}),)
    assert parse('Bearer service=a,realm="b') == (Challenge("bearer", {"service": "a", "realm": ""}),)


def test_a_long_header_takes_no_time() -> None:
    began = time.process_time()
    for header, challenges in (
        ("a " * 9999, 4096),
        ('Bearer a="' + "\\" * 9999, 1),
        ("a=" * 9999, 0),
        ("Bearer " + 'a="b",' * 9999, 2),  # what is cut off leaves half a pair, which is a scheme's name
        (" " * 9999, 0),
        ("," * 9999, 0),
    ):
        assert len(parse(header)) == challenges
    assert time.process_time() - began < 0.5
