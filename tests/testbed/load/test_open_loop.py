"""The open-loop generator against real HTTP servers on the loopback interface."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.errors import UsageError
from testbed.histograms import build_histogram
from testbed.load.arrivals import Schedule, draw_poisson_arrivals
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
from testbed.load.requests import ANY_STATUS, Request
from tests.testbed.load.servers import http_server, reply


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


def test_any_status_is_any_but_a_failure_of_the_server() -> None:
    statuses = [200, 302, 404, 503]
    mix = tuple(Request("GET", f"/{status}", ANY_STATUS) for status in statuses)
    with http_server(lambda handler: reply(handler, int(handler.path[1:]))) as target:
        result = run_load(replace(target, requests=mix), 100, 0.4, connections=4, seed=3)
    assert (result.ok, result.failures) == (30, {"status 503 (GET /503)": 10})


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


def test_the_histogram_keeps_three_digits_and_clips_at_an_hour() -> None:
    made = build_histogram([1234567, 0, 10**12])
    assert made.get_total_count() == 3
    assert made.get_value_at_percentile(50) == pytest.approx(1234567, rel=1e-3)
    assert made.get_max_value() <= 3_602_000_000


def test_a_result_without_requests_has_no_error_fraction() -> None:
    empty = LoadResult(0, 0, {}, build_histogram([]), 1.0, 0, 1, 0, 0.0, 0.0, False, "")
    assert empty.error_fraction == 0.0
    assert empty.achieved_rate_per_s == 0.0


def test_a_mix_is_sent_and_judged_kind_by_kind() -> None:
    seen: list[tuple[str, str, str, bytes]] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"] or 0))
        seen.append((handler.command, handler.path, handler.headers.get("X-Kind", ""), body))
        reply(handler, 404 if handler.path == "/gone" else 201 if handler.command == "POST" else 200)

    mix = (
        Request("GET", "/page", weight=6),
        Request("POST", "/click", 201, (("X-Kind", "one"),), "x" * 300_000, weight=3),
        Request("GET", "/gone", weight=1),
    )
    with http_server(answer) as target:
        result = run_load(replace(target, requests=mix), 100, 0.5, connections=4, seed=5)
    assert (result.ok, result.failures, result.offered) == (45, {"status 404 (GET /gone)": 5}, 50)
    assert Counter(one[:3] for one in seen) == {
        ("GET", "/page", ""): 30,
        ("POST", "/click", "one"): 15,
        ("GET", "/gone", ""): 5,
    }
    assert all(len(body) == (300_000 if method == "POST" else 0) for method, _, _, body in seen)


def test_a_request_that_would_be_two_is_refused() -> None:
    target = Target("127.0.0.1", 1, (Request(headers=(("X", "y\r\nZ: z"),)),))
    with pytest.raises(UsageError, match="more than one line"):
        run_load(target, 10, 1, connections=1, seed=1)


@pytest.mark.parametrize(
    "schedule", [Schedule("constant"), Schedule("ramp", 20.0), Schedule("trace", 0.0, ((0, 180.0),))]
)
def test_other_schedules_are_offered(schedule: Schedule) -> None:
    arrivals: list[float] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        arrivals.append(time.monotonic())
        reply(handler)

    with http_server(answer) as target:
        result = run_load(target, 180, 1.0, connections=16, seed=5, schedule=schedule)
    assert result.ok == len(arrivals) == result.offered == {"ramp": 100}.get(schedule.kind, 180)
    gaps = [after - before for before, after in itertools.pairwise(arrivals[20:])]
    if schedule.kind == "ramp":
        assert sum(at - arrivals[0] < 0.5 for at in arrivals) < 40
    if schedule.kind == "constant":
        assert sum(0.002 < gap < 0.012 for gap in gaps) > 0.8 * len(gaps)


def test_a_server_that_never_stops_sending_delays_no_other_request() -> None:
    """Nor does it grow the generator: what is read is not kept."""

    def flood(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=pour, args=(listener.accept()[0],), daemon=True).start()

    def pour(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            while True:
                connection.sendall(bytes(1 << 16))

    with socket.create_server(("127.0.0.1", 0)) as listener, http_server(reply) as good:
        threading.Thread(target=flood, args=(listener,), daemon=True).start()
        bad = Target("127.0.0.1", listener.getsockname()[1])
        loads = [
            OfferedLoad(bad, 10, 0.5, 2, 1, timeout_s=0.4),
            OfferedLoad(good, 50, 0.5, 4, 2),
        ]
        flooded, served = run_loads(loads)
        listener.shutdown(socket.SHUT_RDWR)
    assert flooded.failures == {"timeout": 5}
    assert served.ok == 25
    assert served.lag_p99_s < 0.05


def test_statuses_that_a_server_invents_fill_a_table_of_bounded_size() -> None:
    numbers = itertools.count()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        reply(handler, 400 + next(numbers) % 500)

    mix = tuple(Request(path=f"/{number}") for number in range(8))
    with http_server(answer) as target:
        result = run_load(replace(target, requests=mix), 1500, 1.0, connections=32, seed=5)
    assert result.failed == 1500
    assert len(result.failures) == 1024 and result.failures["other failures (GET /0)"] > 1
