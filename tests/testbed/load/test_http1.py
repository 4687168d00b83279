"""Responses as servers send them: whole, in pieces, chunked, without a length, and malformed."""

from __future__ import annotations

import gc
import tracemalloc
from contextlib import suppress

import pytest

from testbed.load.http1 import MalformedResponse, ResponseReader

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;name=value\r\n0123456789\r\n0\r\n\r\n"
RESPONSES = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello\r\n\r\nab",
    "empty": b"HTTP/1.1 503 Service Unavailable\r\ncontent-length:0\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "chunked": CHUNKED,
    "trailers": CHUNKED[:-2] + b"Expires: never\r\n\r\n",
    "continue first": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES.keys())
def test_a_response_is_complete_with_its_last_byte_however_it_is_cut(response: bytes) -> None:
    assert ResponseReader().feed(response)
    for cut in range(1, len(response)):
        reader = ResponseReader()
        assert not reader.feed(response[:cut]), cut
        assert reader.feed(response[cut:]), cut
        assert reader.keep_alive


def test_the_status_is_the_final_one() -> None:
    reader = ResponseReader()
    reader.feed(RESPONSES["continue first"])
    assert reader.status == 201
    reader.reset()
    reader.feed(RESPONSES["empty"])
    assert reader.status == 503


def test_an_answer_to_head_has_no_body() -> None:
    assert ResponseReader(bodiless=True).feed(b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n")


def test_without_a_length_the_end_of_the_connection_is_the_end_of_the_body() -> None:
    reader = ResponseReader()
    assert not reader.feed(b"HTTP/1.1 200 OK\r\n\r\nsome")
    assert not reader.feed(b"thing")
    assert reader.close()
    assert reader.status == 200
    assert not reader.keep_alive


def test_a_connection_that_ends_early_does_not_complete_a_response() -> None:
    reader = ResponseReader()
    assert reader.untouched
    reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
    assert not reader.close()
    assert not reader.untouched


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\n", True),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_whether_the_connection_lives_on(head: bytes, kept: bool) -> None:
    reader = ResponseReader()
    assert reader.feed(head + b"Content-Length: 0\r\n\r\n")
    assert reader.keep_alive == kept


@pytest.mark.parametrize(("head", "kept"), [(b"", True), (b"Connection: close\r\n", False)])
def test_an_answer_to_head_needs_no_length_for_the_connection_to_live_on(head: bytes, kept: bool) -> None:
    reader = ResponseReader(bodiless=True)
    for version, lives in ((b"HTTP/1.1", kept), (b"HTTP/1.0", False)):
        assert reader.feed(version + b" 200 OK\r\n" + head + b"\r\n")
        assert (reader.status, reader.keep_alive, reader.surplus) == (200, lives, False)
        reader.reset()


def test_an_offer_of_another_protocol_is_none_of_ours() -> None:
    reader = ResponseReader()
    offer = b"Upgrade: h2c\r\nConnection: Upgrade, Keep-Alive\r\n"
    assert reader.feed(b"HTTP/1.1 200 OK\r\n" + offer + b"Content-Length: 2\r\n\r\nok")
    assert reader.keep_alive
    reader.reset()
    with pytest.raises(MalformedResponse, match="nobody asked for"):
        reader.feed(b"HTTP/1.1 101 Switching Protocols\r\n" + offer + b"\r\n")


def test_a_body_in_another_coding_ends_with_the_connection() -> None:
    reader = ResponseReader()
    assert not reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\nbytes")
    assert reader.close()
    reader.reset()
    assert not reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nbytes\r\n")
    assert not reader.close()


def test_one_connection_carries_all_kinds_in_a_row() -> None:
    reader = ResponseReader()
    for response in [*RESPONSES.values(), *reversed(RESPONSES.values())]:
        assert reader.feed(response)
        assert (reader.keep_alive, reader.surplus) == (True, False)
        reader.reset()
        assert reader.untouched


def test_a_reader_that_is_given_up_leaves_nothing_for_the_collector() -> None:
    """The generator runs without one, and may lose a connection with each answer."""
    gc.collect()
    gc.disable()
    try:
        for response in (RESPONSES["length"], RESPONSES["length"][:-1], b"HTTP/1.0 200 OK\r\n\r\n", b"SSH-2.0\r\n"):
            reader = ResponseReader()
            with suppress(MalformedResponse):
                reader.feed(response)
            reader.close()
            reader.reset()
            reader.reset()
            del reader
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_surplus_bytes_make_the_connection_unusable() -> None:
    reader = ResponseReader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more")
    assert not reader.keep_alive


@pytest.mark.parametrize(
    ("response", "bodiless"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nConnection: close\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n", False),
    ],
)
def test_what_lies_behind_a_response_is_surplus(response: bytes, bodiless: bool) -> None:
    reader = ResponseReader(bodiless)
    assert reader.feed(response)
    assert not reader.surplus
    reader.reset()
    assert reader.feed(response + b"H")
    assert reader.surplus
    reader.reset()
    assert not reader.surplus


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedResponse):
        ResponseReader().feed(data)


def chunk(size: int, data: bytes = b"") -> bytes:
    return b"%x\r\n" % size + data


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PIECE = b"x" * (1 << 18)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (HEAD + b"Content-Length: %d\r\n\r\n" % (400 * len(PIECE) + 2), b"ok"),
        (CHUNKS + chunk(400 * len(PIECE) + 2), b"ok\r\n0\r\n\r\n"),
        (CHUNKS + chunk(400 * len(PIECE)), b"\r\n" + chunk(2, b"ok\r\n0\r\n\r\n")),
    ],
    ids=["length", "one chunk", "two chunks"],
)
def test_a_long_body_is_not_stored(begin: bytes, end: bytes) -> None:
    reader = ResponseReader()
    tracemalloc.start()
    try:
        assert not reader.feed(begin)
        for _ in range(400):
            assert not reader.feed(PIECE)
        for cut in range(len(end) - 1):
            assert not reader.feed(end[cut : cut + 1])
        assert reader.feed(end[-1:])
        assert tracemalloc.get_traced_memory()[1] < 8 * len(PIECE)
    finally:
        tracemalloc.stop()
    assert reader.keep_alive


def test_a_body_without_a_length_is_not_stored() -> None:
    reader = ResponseReader()
    assert not reader.feed(HEAD + b"\r\n")
    for _ in range(400):
        assert not reader.feed(PIECE)
    assert not reader.untouched and reader.close()


@pytest.mark.parametrize(
    "data",
    [
        CHUNKS + b"1;" + b"x" * 200_000,
        CHUNKS + b"0\r\n" + b"X: y\r\n" * 40_000,
        CHUNKS + b"-5\r\n\r\n",
        CHUNKS + b"0x10\r\n",
        CHUNKS + b"1_0\r\n",
        CHUNKS + b"f" * 5000 + b"\r\n",
        HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
    ],
)
def test_what_does_not_end_or_is_no_number_is_malformed(data: bytes) -> None:
    reader = ResponseReader()
    with pytest.raises(MalformedResponse):
        for at in range(0, len(data) + 1000, 1000):
            reader.feed(data[at : at + 1000])
