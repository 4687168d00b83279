"""The open-loop generator against real HTTP servers on the loopback interface."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.histograms import build_histogram
from testbed.load.arrivals import draw_poisson_arrivals
from testbed.load.open_loop import (
    LoadResult,
    OfferedLoad,
    Target,
    is_saturated,
    judge_lateness,
    merge,
    run_load,
    run_loads,
)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


@contextmanager
def http_server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[Target]:
    """A keep-alive HTTP server whose every GET is answered by ``answer``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Target("127.0.0.1", server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reply(handler: BaseHTTPRequestHandler, status: int = 200, body: bytes = b"hello") -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def test_offers_the_rate_it_was_asked_for() -> None:
    arrivals: list[float] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        arrivals.append(time.monotonic())
        reply(handler)

    with http_server(answer) as target:
        result = run_load(target, rate_per_s=200, duration_s=1.5, connections=32, seed=1)
    assert (result.ok, result.failed) == (300, 0)
    assert 160 < len(arrivals) / (max(arrivals) - min(arrivals)) < 240
    assert 0 < result.p50_s <= result.p99_s < 1
    assert result.generator_cpu_s > 0
    assert result.connections_opened <= 32


def test_a_stalled_server_delays_every_request_that_falls_due_meanwhile() -> None:
    """Latency from the moment of sending would see one slow request here, not half of them."""
    began = time.monotonic()
    lock = threading.Lock()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        with lock:
            if 0.5 < time.monotonic() - began < 1.0:
                time.sleep(0.5)
        reply(handler)

    with http_server(answer) as target:
        began = time.monotonic() + 0.1
        result = run_load(target, rate_per_s=100, duration_s=1.5, connections=1, seed=2)
    assert result.ok == 150
    # About 0.5 s * 100/s fall due in the stall and wait 0.25 s on average.
    assert result.percentile_s(90) > 0.2
    assert result.percentile_s(50) < 0.2


def test_other_statuses_refusals_and_closed_connections_are_failures() -> None:
    with http_server(lambda handler: reply(handler, 503)) as target:
        unavailable = run_load(target, rate_per_s=50, duration_s=0.4, connections=4, seed=3)
    assert unavailable.failures == {"status 503": 20}
    assert unavailable.error_fraction == 1.0
    assert unavailable.p99_s == 0.0

    refused = run_load(target, rate_per_s=50, duration_s=0.4, connections=4, seed=3)
    assert refused.failures == {"connect: ECONNREFUSED": 20}

    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True

    with http_server(hang_up) as target:
        closed = run_load(target, rate_per_s=50, duration_s=0.4, connections=4, seed=3)
    assert closed.failed == 20
    assert "connection closed" in closed.failures


def test_answers_that_nobody_asked_for_are_failures() -> None:
    def twice(handler: BaseHTTPRequestHandler) -> None:
        reply(handler)
        reply(handler)

    with http_server(twice) as target:
        together = run_load(target, rate_per_s=50, duration_s=0.4, connections=4, seed=3)
    assert together.failures["surplus answer"] >= 1
    assert together.failed >= 10, "the second one comes with the first or after it"

    def later(handler: BaseHTTPRequestHandler) -> None:
        reply(handler)
        time.sleep(0.02)
        reply(handler)

    with http_server(later) as target:
        idle = run_load(target, rate_per_s=10, duration_s=0.5, connections=1, seed=3)
    assert idle.failures["surplus answer"] >= 1


def test_a_server_that_falls_further_and_further_behind_is_saturated() -> None:
    lock = threading.Lock()

    def one_at_a_time(handler: BaseHTTPRequestHandler) -> None:
        with lock:
            time.sleep(0.01)
        reply(handler)

    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.15)
        reply(handler)

    with http_server(one_at_a_time) as target:
        assert run_load(target, rate_per_s=200, duration_s=1.0, connections=8, seed=5).saturated
    with http_server(slow) as target:
        steady = run_load(target, rate_per_s=50, duration_s=1.0, connections=64, seed=5)
    assert steady.p50_s > 0.15
    assert not steady.saturated, (
        "an eighth of the requests are under way at the end, and none waits longer than the first"
    )


@pytest.mark.parametrize(
    ("ok_usec", "timeouts", "backlog", "saturated"),
    [
        ([100] * 100, 0, 5, False),
        ([*range(100, 10_100, 100)], 0, 6, True),
        ([*range(100, 10_100, 100)], 0, 5, False),
        ([100] * 100, 0, 60, False),
        ([100] * 50, 50, 50, True),
        ([], 20, 20, True),
        ([100, 900], 0, 1, False),
        ([], 0, 0, False),
    ],
)
def test_saturation_is_a_backlog_that_grows(ok_usec: list[int], timeouts: int, backlog: int, saturated: bool) -> None:
    assert is_saturated(ok_usec, timeouts, backlog) is saturated


def test_requests_time_out_counted_from_when_they_were_due() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        result = run_load(Target("127.0.0.1", mute.getsockname()[1]), 100, 0.5, connections=2, seed=4, timeout_s=0.3)
        took_s = time.monotonic() - began
    assert result.failures == {"timeout": 50}
    assert took_s < 3
    assert 0.29 < result.p50_s < 0.5
    assert result.p99_s < 0.5, "requests that waited for a connection time out at the same age"


def test_connections_stay_within_their_limit_and_are_reused() -> None:
    peers: set[tuple[str, int]] = set()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        peers.add(handler.client_address)
        time.sleep(0.01)
        reply(handler)

    with http_server(answer) as target:
        result = run_load(target, rate_per_s=150, duration_s=1, connections=3, seed=5)
    assert result.ok == 150
    assert len(peers) == result.connections_opened <= 3


def test_a_server_that_closes_each_connection_gets_new_ones() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(b"until the end")

    with http_server(answer) as target:
        result = run_load(target, rate_per_s=100, duration_s=0.5, connections=2, seed=6)
    assert (result.ok, result.failed) == (50, 0)
    assert result.connections_opened == 50


def test_the_warm_up_is_sent_but_not_counted() -> None:
    requests: list[float] = []
    moments: list[float] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        requests.append(time.monotonic())
        reply(handler)

    with http_server(answer) as target:
        result = run_load(
            target, 100, 0.5, connections=8, seed=7, warmup_s=0.5,
            started=lambda: moments.append(time.monotonic()),
        )  # fmt: skip
    assert len(requests) == 100
    assert result.ok == sum(due_ns >= 0.5e9 for due_ns in draw_poisson_arrivals(100, 1.0, 7)) < 70
    assert abs(moments[0] - result.began_ns / 1e9) < 0.1
    assert result.elapsed_s == pytest.approx(0.5, abs=0.3)


def test_several_targets_share_one_generator() -> None:
    with http_server(reply) as good, http_server(lambda handler: reply(handler, 500)) as bad:
        loads = [OfferedLoad(good, 100, 0.5, 4, 8), OfferedLoad(bad, 40, 0.5, 4, 9)]
        first, second = run_loads(loads)
    assert (first.ok, first.failed) == (50, 0)
    assert (second.ok, second.failures) == (0, {"status 500": 20})
    assert first.began_ns == second.began_ns
    both = merge([first, second])
    assert (both.ok, both.failed, both.failures) == (50, 20, {"status 500": 20})
    assert both.p50_s == first.p50_s


def test_a_load_that_cannot_be_offered_is_refused() -> None:
    with pytest.raises(UsageError, match="connections is 0"):
        run_load(Target("127.0.0.1", 1), 10, 1, connections=0, seed=1)
    with pytest.raises(UsageError, match="no request falls due"):
        run_load(Target("127.0.0.1", 1), 0.1, 1, connections=1, seed=1)


def test_a_late_generator_is_told_from_a_slow_server() -> None:
    assert judge_lateness(lag_p99_s=0.0019, latency_p99_s=0.002) == ""
    assert "20.0 ms" in judge_lateness(lag_p99_s=0.020, latency_p99_s=0.050)
    assert judge_lateness(lag_p99_s=0.020, latency_p99_s=1.0) == ""


def our_children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()}


def test_a_generator_that_gets_no_processor_calls_itself_late() -> None:
    before = our_children()

    def freeze() -> None:
        (child,) = our_children() - before
        os.kill(child, signal.SIGSTOP)
        threading.Timer(0.2, os.kill, (child, signal.SIGCONT)).start()

    with http_server(reply) as target:
        result = run_load(target, 200, 0.6, connections=4, seed=10, started=freeze)
    assert result.late
    assert 0.1 < result.lag_p99_s < 0.4
    assert "lag" in result.reason


def test_an_interrupt_ends_the_generator() -> None:
    before = our_children()
    children: set[int] = set()

    def interrupt() -> None:
        children.update(our_children() - before)
        raise KeyboardInterrupt

    began = time.monotonic()
    with http_server(reply) as target, pytest.raises(KeyboardInterrupt):
        run_load(target, 10, 30, connections=1, seed=13, started=interrupt)
    assert time.monotonic() - began < 5
    assert children and not any(Path(f"/proc/{child}").exists() for child in children)


def test_arrivals_are_a_poisson_process_of_a_fixed_count() -> None:
    arrivals = draw_poisson_arrivals(rate_per_s=1000, duration_s=10, seed=11)
    assert arrivals == draw_poisson_arrivals(1000, 10, 11) != draw_poisson_arrivals(1000, 10, 12)
    assert len(arrivals) == 10_000
    assert arrivals == sorted(arrivals)
    assert arrivals[0] >= 0 and arrivals[-1] < 10e9
    gaps = [(later - earlier) / 1e9 for earlier, later in itertools.pairwise(arrivals)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert 0.95 < deviation / mean < 1.05, "exponential gaps have a coefficient of variation of one"


def test_the_histogram_keeps_three_digits_and_clips_at_an_hour() -> None:
    made = build_histogram([1234567, 0, 10**12])
    assert made.get_total_count() == 3
    assert made.get_value_at_percentile(50) == pytest.approx(1234567, rel=1e-3)
    assert made.get_max_value() <= 3_602_000_000


def test_a_result_without_requests_has_no_error_fraction() -> None:
    empty = LoadResult(0, 0, {}, build_histogram([]), 1.0, 0, 1, 0, 0.0, 0.0, False, "")
    assert empty.error_fraction == 0.0
    assert empty.achieved_rate_per_s == 0.0
