"""What it costs the load generator to read one answer, beside what the parser alone costs, in one run.

    .venv/bin/python benchmarks/http_reader.py [--answers 100000] [--json]

Each row is an answer as the generator gets it from its sockets: a small one of Sinatra and puma, the same one in
chunks, one to HEAD, and one of 256 KiB in pieces of 64. ``reader`` is testbed's ResponseReader on one connection, reset
after each answer; ``parser`` is httptools' parser with a single callback. The figures are microseconds of CPU time an
answer, the median of REPEATS.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from httptools import HttpResponseParser  # noqa: E402

from benchmarks.command import perform  # noqa: E402
from testbed.load.http1 import ResponseReader  # noqa: E402

REPEATS = 7
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/html;charset=utf-8\r\nx-xss-protection: 1; mode=block\r\n"
    b"x-content-type-options: nosniff\r\nx-frame-options: SAMEORIGIN\r\nserver: puma\r\n"
)
_PIECE_BYTES = 1 << 16
_LONG = _HEAD + b"content-length: %d\r\n\r\n" % (4 * _PIECE_BYTES) + bytes(4 * _PIECE_BYTES)
ANSWERS: dict[str, tuple[bytes, ...]] = {
    "small": (_HEAD + b"content-length: 14\r\n\r\n<p>clicks: 7\r\n",),
    "chunked": (_HEAD + b"transfer-encoding: chunked\r\n\r\n6\r\n<p>cli\r\n8\r\ncks: 7\r\n\r\n0\r\n\r\n",),
    "to HEAD": (_HEAD + b"content-length: 14\r\n\r\n",),
    "256 KiB": tuple(_LONG[at : at + _PIECE_BYTES] for at in range(0, len(_LONG), _PIECE_BYTES)),
}


class _Once:
    """The least that a user of the parser needs: a word when a response is complete."""

    def on_message_complete(self) -> None:
        pass


def usec_per_answer(read: Callable[[Sequence[bytes]], None], pieces: Sequence[bytes], answers: int) -> float:
    """The median CPU time of ``answers`` calls in a row, in microseconds a call."""
    taken = []
    for _ in range(REPEATS):
        began_ns = time.process_time_ns()
        for _ in range(answers):
            read(pieces)
        taken.append((time.process_time_ns() - began_ns) / answers / 1e3)
    return statistics.median(taken)


def by_reader(bodiless: bool) -> Callable[[Sequence[bytes]], None]:
    """What reads one answer with testbed's reader."""
    reader = ResponseReader(bodiless)

    def read(pieces: Sequence[bytes]) -> None:
        complete = False
        for piece in pieces:
            complete = reader.feed(piece)
        assert complete and reader.keep_alive and not reader.surplus
        reader.reset()

    return read


def by_parser() -> Callable[[Sequence[bytes]], None]:
    """What reads one answer with nothing but the parser."""
    parser = HttpResponseParser(_Once())

    def read(pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            parser.feed_data(piece)

    return read


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--answers", type=int, default=100_000, help="of each row and repeat; of the long one a tenth")
    options.add_argument("--json", action="store_true")
    arguments = options.parse_args()
    rows: dict[str, dict[str, float]] = {}
    for name, pieces in ANSWERS.items():
        answers = max(1, arguments.answers // len(pieces) ** 2)
        rows[name] = {"reader": usec_per_answer(by_reader(name == "to HEAD"), pieces, answers)}
        if name != "to HEAD":  # the parser does not know what was asked, and would wait for the body
            rows[name]["parser"] = usec_per_answer(by_parser(), pieces, answers)
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'microseconds an answer':24}{'reader':>8}{'parser':>8}")
    for name, row in rows.items():
        print(
            f"{name:24}" + "".join(f"{row[kind]:8.2f}" if kind in row else f"{'-':>8}" for kind in ("reader", "parser"))
        )


if __name__ == "__main__":
    perform(main)
