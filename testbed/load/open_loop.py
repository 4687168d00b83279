"""Open-loop HTTP load: requests are sent when they are due, whether or not earlier ones have been answered.

Latency counts from the moment at which a request was *due*, not from the moment at which it could be sent:
a server that stalls for a second delays every request that fell due in that second, and a generator that
waits for it (a closed loop) would report one slow request instead ("coordinated omission": Gil Tene, How NOT
to Measure Latency, 2013; wrk2 and its README). The generator (testbed/load/generator, in C) is a process of its own, so
that nothing else this process does, such as sampling, delays a request.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import TestbedError, UsageError
from testbed.histograms import build_histogram
from testbed.load.arrivals import Schedule, count_requests, draw_arrivals
from testbed.load.build import GENERATOR
from testbed.load.messages import Report, Stream, StreamReport, decode_report, encode_loads
from testbed.load.requests import Request, draw_kinds, find_fault

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram

# A trial is void when the generator's own lag could pass for the server's latency: when its p99 is more than
# a tenth of the p99 that is reported, unless it is below 2 ms. On two processors kept busy by others it stays
# below 0.5 ms (it runs as a real-time task), so a void trial means that something went wrong on the host.
LAG_LIMIT_S = 0.002
LAG_LIMIT_FRACTION = 0.1

# A server is saturated when so much of what fell due in the window was not over at its end, and the latency at the end
# was so many times that of the beginning: a queue that grows for as long as the load lasts.
BACKLOG_LIMIT = 0.05
GROWTH_LIMIT = 2.0


class Target(Struct, frozen=True):
    """What is asked, and for what: one kind of request, or a mix of several."""

    address: str
    port: int
    requests: tuple[Request, ...] = (Request(),)


class OfferedLoad(Struct, frozen=True):
    """A load on one target: ``rate_per_s`` requests for ``duration_s``, over at most ``connections``.

    The first ``warmup_s`` come on top and are not counted. A request that has no answer ``timeout_s`` after it was due
    has failed. ``seed`` decides when the requests are due, as the ``schedule`` has it, and in which order the kinds of
    a mix come. A trace has rates of its own: ``rate_per_s`` is what it is called by.
    """

    target: Target
    rate_per_s: float
    duration_s: float
    connections: int
    seed: int
    warmup_s: float = 0.0
    timeout_s: float = 10.0
    schedule: Schedule = Schedule()

    def count_requests(self) -> int:
        """Return how many requests it has, those of the warm-up too."""
        return count_requests(self.schedule, self.rate_per_s, self.duration_s, self.warmup_s)

    def plan(self) -> Stream:
        """Draw its requests, for the generator."""
        arrivals = draw_arrivals(self.schedule, self.rate_per_s, self.duration_s, self.seed, self.warmup_s)
        return Stream(
            self.target.address,
            self.target.port,
            round(self.timeout_s * 1e9),
            round(self.warmup_s * 1e9),
            round(self.duration_s * 1e9),
            self.connections,
            self.target.requests,
            arrivals,
            draw_kinds(self.target.requests, len(arrivals), self.seed),
        )


class LoadResult(Struct, frozen=True):
    """What became of the counted requests of a load.

    ``latencies`` is a histogram in microseconds, from due to the last byte of the answer, of the successes
    and of the timeouts (at the time they had waited); failures of other kinds are often fast and would
    flatter it, so they are only counted, in ``failures`` by reason. Its percentiles are as good as its count
    (``testbed.histograms.percentile_or_none``). ``elapsed_s`` runs from the end of the warm-up to the last answer, and
    is at least the load's duration. ``began_ns`` and ``ended_ns`` are the same two moments on CLOCK_MONOTONIC.
    ``connections_opened`` and ``offered``, the number of requests, count the warm-up's too.

    ``saturated``: the server fell behind further and further (see ``is_saturated``), so that the latencies are as
    long as the load lasted.

    ``lag_p99_s`` and ``lag_max_s`` (how long after its due time the generator turned to a request), ``late`` with its
    ``reason``, and ``generator_cpu_s`` (since counting began) speak of the generator's process, which all loads of one
    call share.
    A result that is ``late`` says nothing about the server: the trial is void.
    """

    ok: int
    failed: int
    failures: Mapping[str, int]
    latencies: HdrHistogram
    elapsed_s: float
    began_ns: int
    ended_ns: int
    connections_opened: int
    lag_p99_s: float
    generator_cpu_s: float
    late: bool
    reason: str
    saturated: bool = False
    offered: int = 0
    lag_max_s: float = 0.0

    @property
    def p50_s(self) -> float:
        """The median latency in seconds; 0 when nothing was answered."""
        return self.percentile_s(50)

    @property
    def p99_s(self) -> float:
        """The 99th percentile of the latency in seconds; 0 when nothing was answered."""
        return self.percentile_s(99)

    @property
    def achieved_rate_per_s(self) -> float:
        """Successful requests per second of ``elapsed_s``."""
        return self.ok / self.elapsed_s

    @property
    def error_fraction(self) -> float:
        """Failed requests as a fraction of all; 0 when there was none."""
        return self.failed / (self.ok + self.failed) if self.ok + self.failed else 0.0

    def percentile_s(self, percentile: float) -> float:
        """Return a percentile (0 to 100) of the latency, in seconds, to three significant digits."""
        return float(self.latencies.get_value_at_percentile(percentile)) / 1e6


def run_load(
    target: Target,
    rate_per_s: float,
    duration_s: float,
    connections: int,
    seed: int,
    *,
    warmup_s: float = 0.0,
    timeout_s: float = 10.0,
    schedule: Schedule = Schedule(),  # noqa: B008 frozen data
    started: Callable[[], None] | None = None,
) -> LoadResult:
    """Offer one load and wait for its end; the parameters are those of OfferedLoad and run_loads."""
    load = OfferedLoad(target, rate_per_s, duration_s, connections, seed, warmup_s, timeout_s, schedule)
    return run_loads([load], started=started)[0]


def run_loads(loads: Sequence[OfferedLoad], *, started: Callable[[], None] | None = None) -> tuple[LoadResult, ...]:
    """Offer several loads at once from one generator and wait for their end: one result each, in order.

    ``started`` is called when the (longest) warm-up is over and counting begins. Raises UsageError for a
    load that cannot be offered, TestbedError when the generator fails. On any exception, an interrupt
    too, the generator is gone when this returns.
    """
    for load in loads:
        check_load(load)
    if not loads:
        return ()
    planned = [load.plan() for load in loads]
    return judge_report(loads, offer(planned, started))


def offer(planned: Sequence[Stream], started: Callable[[], None] | None = None) -> Report:
    """Have a generator offer what is planned and return its report; ``started`` and errors as for ``run_loads``."""
    with subprocess.Popen(
        [GENERATOR.build()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        try:
            with contextlib.suppress(BrokenPipeError):  # it died early: its exit status and stderr say why
                process.stdin.writelines(encode_loads(planned))
                process.stdin.close()
            if process.stdout.readline() and started is not None:
                started()
            answer = process.stdout.read()
            complaint = process.stderr.read().decode(errors="replace").strip()
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise TestbedError(f"load generator: exit status {process.returncode}", complaint[-2000:])
    return decode_report(answer, planned)


def check_load(load: OfferedLoad) -> None:
    """Raise UsageError for a load that cannot be offered."""
    where = f"{load.target.address}:{load.target.port}"
    numbers = {
        "rate_per_s": load.rate_per_s,
        "duration_s": load.duration_s,
        "connections": load.connections,
        "timeout_s": load.timeout_s,
    }
    for name, value in numbers.items():
        if value <= 0:
            raise UsageError(f"load on {where}: {name} is {value}", "it must be more than 0")
    for request in load.target.requests:
        if fault := find_fault(request):
            raise UsageError(f"load on {where}: {request}: {fault}")
    if count_requests(load.schedule, load.rate_per_s, load.duration_s) < 1:
        raise UsageError(
            f"load on {where}: no request falls due in {load.duration_s:g} s",
            f"at {load.rate_per_s:g} requests/s, load for {1 / load.rate_per_s:g} s at least",
        )


def judge_report(loads: Sequence[OfferedLoad], report: Report) -> tuple[LoadResult, ...]:
    """Return what the generator reports as results, one a load."""
    lags = build_histogram(report.lags_usec)
    lag_p99_s, lag_max_s = (float(lags.get_value_at_percentile(percentile)) / 1e6 for percentile in (99, 100))
    pairs = zip(loads, report.streams, strict=True)
    return tuple(_judge_stream(load, stream, report, lag_p99_s, lag_max_s) for load, stream in pairs)


def _judge_stream(
    load: OfferedLoad, stream: StreamReport, report: Report, lag_p99_s: float, lag_max_s: float
) -> LoadResult:
    latencies = build_histogram([*stream.ok_usec, *stream.timeout_usec])
    reason = judge_lateness(lag_p99_s, float(latencies.get_value_at_percentile(99)) / 1e6)
    ended_ns = max(stream.last_ns, report.began_ns + round(load.duration_s * 1e9))
    return LoadResult(
        ok=len(stream.ok_usec),
        failed=sum(stream.failures.values()),
        failures=dict(sorted(stream.failures.items())),
        latencies=latencies,
        elapsed_s=(ended_ns - report.began_ns) / 1e9,
        began_ns=report.began_ns,
        ended_ns=ended_ns,
        connections_opened=stream.opened,
        lag_p99_s=lag_p99_s,
        generator_cpu_s=report.cpu_ns / 1e9,
        late=bool(reason),
        reason=reason,
        saturated=is_saturated(stream.ok_usec, len(stream.timeout_usec), stream.backlog),
        offered=load.count_requests(),
        lag_max_s=lag_max_s,
    )


def is_saturated(ok_usec: Sequence[int], timeouts: int, backlog: int) -> bool:
    """Return whether the queue grew for as long as the load lasted.

    ``ok_usec`` are the latencies of the answers as they came in, ``backlog`` how many of all requests were not over
    when the last one was due. A server that is slow but keeps up has a backlog too, of rate times latency (Little's
    law), and answers the last ones as fast as the first.
    """
    if backlog <= BACKLOG_LIMIT * (len(ok_usec) + timeouts):
        return False
    quarter = len(ok_usec) // 4
    if timeouts or not quarter:
        return bool(timeouts)
    return median(ok_usec[-quarter:]) > GROWTH_LIMIT * median(ok_usec[:quarter])


def judge_lateness(lag_p99_s: float, latency_p99_s: float) -> str:
    """Return why a generator with this lag was too late to be believed; empty when it was not."""
    limit_s = max(LAG_LIMIT_S, LAG_LIMIT_FRACTION * latency_p99_s)
    if lag_p99_s <= limit_s:
        return ""
    return f"generator late: p99 lag {lag_p99_s * 1e3:.1f} ms, more than {limit_s * 1e3:.1f} ms"


def merge(parts: Sequence[LoadResult]) -> LoadResult:
    """Return the results of one call of run_loads as if they were one load; ``parts`` must not be empty.

    Latencies of all targets fall into one histogram, and lateness is judged against it.
    """
    latencies = build_histogram([])
    failures: Counter[str] = Counter()
    for part in parts:
        latencies.add(part.latencies)
        failures.update(part.failures)
    lag_p99_s = max(part.lag_p99_s for part in parts)
    reason = judge_lateness(lag_p99_s, float(latencies.get_value_at_percentile(99)) / 1e6)
    return replace(
        parts[0],
        ok=sum(part.ok for part in parts),
        failed=sum(part.failed for part in parts),
        failures=dict(sorted(failures.items())),
        latencies=latencies,
        elapsed_s=max(part.elapsed_s for part in parts),
        ended_ns=max(part.ended_ns for part in parts),
        connections_opened=sum(part.connections_opened for part in parts),
        lag_p99_s=lag_p99_s,
        late=bool(reason),
        reason=reason,
        saturated=any(part.saturated for part in parts),
        offered=sum(part.offered for part in parts),
        lag_max_s=max(part.lag_max_s for part in parts),
    )
