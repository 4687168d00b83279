"""Lines of a stream that comes in pieces."""

from __future__ import annotations

from runtime.lines import Lines


def test_lines_are_given_once_they_are_whole() -> None:
    given: list[bytes] = []
    lines = Lines(given.extend, "web: ")
    for piece in (b"one\ntw", b"o", b"\n\nth", b"ree"):
        lines.feed(piece)
    assert given == [b"web: one", b"web: two", b"web: "]
    lines.feed(b"")
    assert given[3:] == [b"web: three"]
    lines.feed(b"")
    assert len(given) == 4


def test_a_line_without_an_end_is_given_in_parts() -> None:
    given: list[bytes] = []
    lines = Lines(given.extend)
    for _ in range(100):
        lines.feed(b"x" * 1000)
    assert sum(map(len, given)) > 95_000 and max(map(len, given)) == 4096
