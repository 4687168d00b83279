"""Responses as servers send them: whole, in pieces, chunked, without a length, and malformed.

Both readers are asked, the generator's in C and the one in Python, and must say the same of all.
"""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from testbed.load.http1 import MAXIMUM_HEAD_BYTES, MalformedResponse, ResponseReader
from tests.testbed.load.c_reader import CReader

Reader = ResponseReader | CReader
MakeReader = Callable[..., Reader]
# Status, whether the connection is kept, whether more came than belongs to it; or what else is to be said.
Verdict = tuple[int, bool, bool] | str


@pytest.fixture(params=[ResponseReader, CReader], ids=["Python", "C"])
def make_reader(request: pytest.FixtureRequest) -> MakeReader:
    made: MakeReader = request.param
    return made


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
def test_a_response_is_complete_with_its_last_byte_however_it_is_cut(make_reader: MakeReader, response: bytes) -> None:
    assert make_reader().feed(response)
    for cut in range(1, len(response)):
        reader = make_reader()
        assert not reader.feed(response[:cut]), cut
        assert reader.feed(response[cut:]), cut
        assert reader.keep_alive


def test_the_status_is_the_final_one(make_reader: MakeReader) -> None:
    reader = make_reader()
    reader.feed(RESPONSES["continue first"])
    assert reader.status == 201
    reader.reset()
    reader.feed(RESPONSES["empty"])
    assert reader.status == 503


def test_an_answer_to_head_has_no_body(make_reader: MakeReader) -> None:
    assert make_reader(bodiless=True).feed(b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n")


def test_without_a_length_the_end_of_the_connection_is_the_end_of_the_body(make_reader: MakeReader) -> None:
    reader = make_reader()
    assert not reader.feed(b"HTTP/1.1 200 OK\r\n\r\nsome")
    assert not reader.feed(b"thing")
    assert reader.close()
    assert reader.status == 200
    assert not reader.keep_alive


def test_a_connection_that_ends_early_does_not_complete_a_response(make_reader: MakeReader) -> None:
    reader = make_reader()
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
def test_whether_the_connection_lives_on(make_reader: MakeReader, head: bytes, kept: bool) -> None:
    reader = make_reader()
    assert reader.feed(head + b"Content-Length: 0\r\n\r\n")
    assert reader.keep_alive == kept


@pytest.mark.parametrize(("head", "kept"), [(b"", True), (b"Connection: close\r\n", False)])
def test_an_answer_to_head_needs_no_length_for_the_connection_to_live_on(
    make_reader: MakeReader, head: bytes, kept: bool
) -> None:
    reader = make_reader(bodiless=True)
    for version, lives in ((b"HTTP/1.1", kept), (b"HTTP/1.0", False)):
        assert reader.feed(version + b" 200 OK\r\n" + head + b"\r\n")
        assert (reader.status, reader.keep_alive, reader.surplus) == (200, lives, False)
        reader.reset()


def test_an_offer_of_another_protocol_is_none_of_ours(make_reader: MakeReader) -> None:
    reader = make_reader()
    offer = b"Upgrade: h2c\r\nConnection: Upgrade, Keep-Alive\r\n"
    assert reader.feed(b"HTTP/1.1 200 OK\r\n" + offer + b"Content-Length: 2\r\n\r\nok")
    assert reader.keep_alive
    reader.reset()
    with pytest.raises(MalformedResponse):
        reader.feed(b"HTTP/1.1 101 Switching Protocols\r\n" + offer + b"\r\n")


def test_a_body_in_another_coding_ends_with_the_connection(make_reader: MakeReader) -> None:
    reader = make_reader()
    assert not reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\nbytes")
    assert reader.close()
    reader.reset()
    assert not reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nbytes\r\n")
    assert not reader.close()


def test_one_connection_carries_all_kinds_in_a_row(make_reader: MakeReader) -> None:
    reader = make_reader()
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


def test_surplus_bytes_make_the_connection_unusable(make_reader: MakeReader) -> None:
    reader = make_reader()
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
def test_what_lies_behind_a_response_is_surplus(make_reader: MakeReader, response: bytes, bodiless: bool) -> None:
    reader = make_reader(bodiless)
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
def test_what_is_not_http_is_malformed(make_reader: MakeReader, data: bytes) -> None:
    with pytest.raises(MalformedResponse):
        make_reader().feed(data)


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
def test_a_long_body_is_not_stored(make_reader: MakeReader, begin: bytes, end: bytes) -> None:
    reader = make_reader()
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


def test_a_body_without_a_length_is_not_stored(make_reader: MakeReader) -> None:
    reader = make_reader()
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
def test_what_does_not_end_or_is_no_number_is_malformed(make_reader: MakeReader, data: bytes) -> None:
    reader = make_reader()
    with pytest.raises(MalformedResponse):
        for at in range(0, len(data) + 1000, 1000):
            reader.feed(data[at : at + 1000])


# What was once in doubt, and what mutation makes more of.
CASES = [
    *RESPONSES.values(),
    CHUNKS + b'2;a="b\\"c";d=e;f\r\nok\r\n0\r\n\r\n',
    CHUNKS + b"2;\r\nok\r\n0\r\n\r\n",
    CHUNKS + b"2 \r\nok\r\n0\r\n\r\n",
    CHUNKS + b"0002\r\nok\r\n00\r\nContent-Length: 5\r\n\r\n",
    CHUNKS + b"2\r\nok\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    CHUNKS + b"fffffffffffffffff\r\n",
    HEAD + b"Transfer-Encoding: gzip, chunked\r\nConnection: foo , Close\r\n\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    HEAD + b"Content-Length: 18446744073709551616\r\n\r\n",
    HEAD + b"Content-Length: 2 \t\r\nConnection: keep-alive, close\r\n\r\nok",
    HEAD + b"Content-Length: 2\nX: y\r\n\r\nok",
    HEAD + b"X : y\r\nContent-Length: 0\r\n\r\n",
    HEAD + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n" + HEAD + b"\r\nuntil the end",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
]
WORDS = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"=",
    b'"',
    b"0",
    b"f",
    b"\x00",
    b"\x7f",
    b"\xff",
    b"HTTP/1.1 ",
]


def mutants(count: int) -> Iterator[bytes]:
    """Make answers by cutting, repeating, replacing and joining what is there."""
    chance = random.Random(5)
    for _ in range(count):
        data = bytearray(chance.choice(CASES))
        for _ in range(chance.randint(0, 3)):
            at, kind = chance.randrange(len(data) + 1), chance.randrange(4)
            if kind == 0:
                del data[at : at + chance.randint(1, 6)]
            elif kind == 1:
                data[at:at] = chance.choice(WORDS)
            elif kind == 2:
                data[at : at + 1] = chance.choice(WORDS)
            else:
                other = chance.choice(CASES)
                data[at:at] = other[chance.randrange(len(other)) :][:30]
        yield bytes(data)


def verdict(reader: Reader, data: bytes) -> Verdict:
    """What a reader says of an answer and of the connection's end after it."""
    try:
        if reader.feed(data):
            return reader.status, reader.keep_alive, reader.surplus
    except MalformedResponse:
        return "malformed"
    return "ends with the connection" if reader.close() else "cut short"


# The reader in Python is made of llhttp, which is less strict in places; all that it refuses, the generator refuses.
def is_known(data: bytes, expected: Verdict, said: Verdict) -> bool:
    """Whether two verdicts differ for a known reason."""
    _, _, rest = data.partition(b"\r\n\r\n")
    return (
        data[:1] in (b"\r", b"\n")  # an empty line before the status line is none to the generator
        or b"transfer-encoding" in rest.lower()  # after the last chunk, where it means nothing
        or ((b";=" in rest or b";;" in rest) and said == "malformed")  # a chunk's extension without a name
        or (expected, said) == ("cut short", "malformed")  # it is seen a byte or two earlier
        or (
            (expected, said) == ("ends with the connection", "cut short") and b" 10" in data[:12]
        )  # behind "100 Continue"
        or (said[:1] == expected[:1] and isinstance(said, tuple))  # to HEAD: a body that is not whole is surplus, too
    )


@pytest.mark.no_cover
@pytest.mark.parametrize("bodiless", [False, True], ids=["GET", "HEAD"])
def test_both_readers_say_the_same_of_what_servers_may_send(bodiless: bool) -> None:
    differences = {}
    for data in (*CASES, *mutants(30_000)):
        expected, said = verdict(ResponseReader(bodiless), data), verdict(CReader(bodiless), data)
        if expected != said and not is_known(data, expected, said):
            differences[data] = (expected, said)
    assert not differences, f"{len(differences)}: {list(differences.items())[:12]}"


@pytest.mark.parametrize("data", [b"\r\n" * (MAXIMUM_HEAD_BYTES // 2 + 1), b"HTTP/1.1 100 Go on\r\n\r\n" * 4000])
def test_what_comes_before_an_answer_is_bounded(data: bytes) -> None:
    with pytest.raises(MalformedResponse):
        CReader().feed(data)


def test_empty_lines_between_answers_are_none() -> None:
    reader = CReader()
    assert not reader.feed(b"\r\n\n\r\n") and reader.untouched
    assert reader.feed(RESPONSES["empty"] + b"\r\n") and not reader.surplus and reader.keep_alive
