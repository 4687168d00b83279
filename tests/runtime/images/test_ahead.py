"""A stream that a thread reads ahead gives the same, raises the same, and ends with its reader."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from runtime.images.ahead import read_ahead


def test_it_gives_the_same_in_the_same_order_from_another_thread() -> None:
    threads = set()

    def chunks() -> Iterator[bytes]:
        for number in range(100):
            threads.add(threading.get_ident())
            yield b"%d" % number

    assert list(read_ahead(chunks())) == [b"%d" % number for number in range(100)]
    assert threads and threading.get_ident() not in threads


def test_what_the_source_raises_is_raised() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x"
        raise ConnectionResetError("gone")

    stream = read_ahead(chunks())
    assert next(stream) == b"x"
    with pytest.raises(ConnectionResetError, match="gone"):
        next(stream)


def test_a_reader_that_stops_ends_the_thread_and_asks_for_no_more() -> None:
    asked = []

    def chunks() -> Iterator[bytes]:
        for number in range(1000):
            asked.append(number)
            yield b"x"

    before = threading.active_count()
    with closing(read_ahead(chunks())) as stream:
        next(stream)
    assert threading.active_count() == before
    assert len(asked) < 10
