"""When latency is steady: the rule on series whose transient is known, and requests to a real server."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise

import pytest

from testbed.load.open_loop import Target
from testbed.load.requests import Request
from testbed.measures.steady import BATCH, FEWEST_BATCHES, RATE_PER_S, find_steady, watch_latency


def series(slow: int, factor: float, count: int = 250, seed: int = 1) -> list[float]:
    chance = random.Random(seed)
    return [chance.lognormvariate(-7, 0.3) * (factor if number < slow else 1) for number in range(count)]


@pytest.mark.parametrize("slow", [0, 15, 50, 100])
def test_the_end_of_a_transient_is_found_within_some_batches(slow: int) -> None:
    found = [find_steady(series(slow, 4, seed=seed)) for seed in range(40)]
    ends = sorted(end for end in found if end is not None)
    assert len(ends) >= 30
    assert slow <= ends[len(ends) // 2] <= slow + 3 * BATCH
    assert ends[0] >= slow - BATCH


def test_a_transient_beyond_half_of_the_window_has_no_end() -> None:
    assert all(find_steady(series(170, 4, seed=seed)) is None for seed in range(20))
    rising = [0.001 * (1 + number) for number in range(250)]
    assert find_steady(rising) is None


def test_one_stalled_request_is_no_change_of_the_level() -> None:
    latencies = [0.001 + 0.00001 * (number % 7) for number in range(100)]
    expected = find_steady(latencies)
    latencies[44] = 1.0
    assert find_steady(latencies) == expected


def test_too_few_have_no_answer() -> None:
    assert find_steady([]) is None
    assert find_steady([0.001] * (FEWEST_BATCHES * BATCH - 1)) is None
    assert find_steady([0.001] * (FEWEST_BATCHES * BATCH)) == 0


@contextmanager
def server(answer: bytes, delay_s: float = 0.0, closes: bool = False) -> Iterator[tuple[Target, list[bytes]]]:
    """Answers every request with these bytes; a list of what was asked."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while request := connection.recv(65536):
                asked.append(request)
                time.sleep(delay_s)
                connection.sendall(answer)
                if closes:
                    return

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with listener:
        yield Target("127.0.0.1", listener.getsockname()[1], (Request("POST", "/click"),)), asked
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("closes", [False, True])
def test_requests_are_sent_when_they_are_due(closes: bool) -> None:
    with server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", closes=closes) as (target, asked):
        began_ns = time.monotonic_ns()
        answered = watch_latency(target, 0.4)
    assert len(asked) == 0.4 * RATE_PER_S
    assert asked[0].startswith(b"POST /click HTTP/1.1\r\n")
    assert len(answered) == len(asked)
    gaps = {after.due_ns - before.due_ns for before, after in pairwise(answered)}
    assert answered[0].due_ns >= began_ns and min(gaps) == pytest.approx(1e9 / RATE_PER_S, rel=0.01)
    assert all(0 < one.latency_s < 0.2 for one in answered)


def test_a_server_that_is_slower_than_the_schedule_shows_its_queue_and_has_an_end() -> None:
    with server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", delay_s=0.08) as (target, _):
        answered = watch_latency(target, 0.4)
    assert answered[-1].latency_s > 0.3, "it counts from when it was due"


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n"], ids=["error", "malformed"]
)
def test_what_is_no_right_answer_does_not_count(answer: bytes) -> None:
    with server(answer) as (target, asked):
        assert watch_latency(target, 0.2) == []
        assert asked


def test_nobody_there_is_no_latency() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert watch_latency(Target("127.0.0.1", port), 0.1) == []
