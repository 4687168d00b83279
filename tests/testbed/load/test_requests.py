"""Kinds of request: their bytes, what they may not hold, and their order in a mix."""

from __future__ import annotations

from collections import Counter

import pytest

from testbed.load.requests import MOST_BODY_BYTES, Request, draw_kinds, find_fault, find_main


def test_a_message_says_where_it_ends() -> None:
    assert Request().compose("10.0.0.1", 80) == (
        b"GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\nUser-Agent: testbed\r\nAccept: */*\r\n\r\n"
    )
    post = Request("POST", "/a", headers=(("Content-Type", "text/plain"), ("HOST", "example.org")), body="né")
    assert (
        post.compose("::1", 8080)
        == (
            "POST /a HTTP/1.1\r\nHOST: example.org\r\nUser-Agent: testbed\r\nAccept: */*\r\n"
            "Content-Type: text/plain\r\nContent-Length: 3\r\n\r\nné"
        ).encode()
    )
    assert b"Host: [::1]:8080\r\n" in Request("DELETE").compose("::1", 8080)
    assert b"Content-Length: 0\r\n" in Request("DELETE").compose("::1", 8080)


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        (Request("FETCH"), "the method is none of"),
        (Request("GET\r\nX: y"), "the method is none of"),
        (Request(path="/a b"), "the path"),
        (Request(path="/a\r\nX: y"), "the path"),
        (Request(path="a"), "the path"),
        (Request("GET", body="x"), "a GET has no body"),
        (Request("POST", body="x" * (MOST_BODY_BYTES + 1)), "the body is longer than 1 MiB"),
        (Request(headers=tuple((f"X-{number}", "") for number in range(33))), "more than 32 headers"),
        (Request(headers=(("a", "1"), ("A", "2"))), "a header is there twice"),
        (Request(headers=(("X y", "1"),)), "is not a header's name"),
        (Request(headers=(("X", "1\r\nY: 2"),)), "has a value that is more than one line"),
        (Request(headers=(("X", "1\nY: 2"),)), "has a value that is more than one line"),
        (Request(headers=(("X", "\0"),)), "has a value that is more than one line"),
        (Request(headers=(("X", " 1"),)), "has a value that is more than one line"),
        (Request(headers=(("Content-LENGTH", "7"),)), "is set by the load generator"),
        (Request(headers=(("Transfer-Encoding", "chunked"),)), "is set by the load generator"),
        (Request("POST", "/x?y=z", 201, (("X", ""), ("Y", "a b")), "body"), ""),
    ],
)
def test_what_would_be_another_message_is_refused(request_: Request, fault: str) -> None:
    found = find_fault(request_)
    assert fault in found if fault else not found


def test_a_mix_has_each_kind_as_often_as_its_weight_says_in_an_order_of_chance() -> None:
    mix = (Request(weight=7), Request("POST", weight=2), Request(path="/rare", weight=0.5))
    kinds = draw_kinds(mix, 1000, 5)
    counts = Counter(kinds)
    assert (counts[0], counts[1], counts[2]) == (737, 210, 53)
    assert kinds == draw_kinds(mix, 1000, 5) != draw_kinds(mix, 1000, 6)
    assert Counter(draw_kinds(mix, 1000, 6)) == counts
    assert len(set(kinds[:50])) > 1, "they are not in a row"
    for count in range(20):
        assert len(draw_kinds(mix, count, 1)) == count
    assert draw_kinds((Request(),), 3, 1) == bytes(3)


def test_the_main_request_is_the_first_of_the_greatest_weight() -> None:
    assert find_main((Request("PUT"), Request("POST", weight=3), Request("GET", weight=3))).method == "POST"
