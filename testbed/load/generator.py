"""The load generator's process: one event loop that sends every request when it is due.

    python -m testbed.load.generator < loads.json

Reads a JSON list of testbed.load.open_loop.OfferedLoad, prints a line when counting begins and a line with the report
at the end. It imports nothing heavy and does no statistics: it runs on the host that it measures.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from errno import EINPROGRESS, errorcode
from typing import Any

from testbed.load.arrivals import draw_poisson_arrivals
from testbed.load.http1 import MalformedResponse, ResponseReader

# Time from "now" to the first arrival: the loop is running and has paged in its code by then.
LEAD_NS = 20_000_000
# The time between two looks for overdue requests when none is known to become overdue earlier.
EXPIRY_NS = 1_000_000_000
# What stands in the schedule for the end of the warm-up, in place of a stream's number.
BEGIN = -1
PR_SET_PDEATHSIG = 1
PR_SET_TIMERSLACK = 29


class Request:
    """One request: when it is due, whether it counts, and the connection it is on, if it has one."""

    __slots__ = ("due_ns", "counted", "connection", "done")

    def __init__(self, due_ns: int, counted: bool) -> None:
        self.due_ns = due_ns
        self.counted = counted
        self.connection: Connection | None = None
        self.done = False


class Connection:
    """One keep-alive connection: the request it carries, or None when it is idle."""

    __slots__ = ("stream", "socket", "number", "reader", "request", "unsent", "watched")

    def __init__(self, stream: Stream, sock: socket.socket) -> None:
        self.stream = stream
        self.socket = sock
        self.number = sock.fileno()
        self.reader = ResponseReader(bodiless=stream.method == "HEAD")
        self.request: Request | None = None
        self.unsent = b""
        self.watched = select.EPOLLIN | select.EPOLLOUT


class Stream:
    """One load while it is offered: its connections, its queue, and what became of its requests."""

    def __init__(self, load: Mapping[str, Any]) -> None:
        target = load["target"]
        self.address = (target["address"], target["port"])
        self.family = socket.AF_INET6 if ":" in target["address"] else socket.AF_INET
        self.method: str = target["method"]
        self.expect_status: int = target["expect_status"]
        host = f"[{target['address']}]" if self.family == socket.AF_INET6 else target["address"]
        lines = [
            f"{self.method} {target['path']} HTTP/1.1",
            f"Host: {host}:{target['port']}",
            "User-Agent: testbed",
            "Accept: */*",
        ]
        if self.method not in ("GET", "HEAD"):
            lines.append("Content-Length: 0")
        self.message = ("\r\n".join(lines) + "\r\n\r\n").encode()
        self.timeout_ns = round(load["timeout_s"] * 1e9)
        self.warmup_ns = round(load["warmup_s"] * 1e9)
        self.limit: int = load["connections"]
        self.arrivals = draw_poisson_arrivals(load["rate_per_s"], load["warmup_s"] + load["duration_s"], load["seed"])
        self.open = 0
        self.opened = 0
        self.idle: list[Connection] = []
        self.queue: deque[Request] = deque()
        self.unanswered: deque[Request] = deque()
        self.ok_usec: list[int] = []
        self.timeout_usec: list[int] = []
        self.failures: Counter[str] = Counter()
        self.last_ns = 0
        self.duration_ns = round(load["duration_s"] * 1e9)
        self.began_ns = self.end_ns = 0  # when requests are due that count, on CLOCK_MONOTONIC
        self.backlog = 0  # counted requests that were not over by then

    def book(self, request: Request, failure: str, now_ns: int) -> None:
        """Note what became of a request: ``failure`` is why it failed, empty for a success."""
        if not request.counted:
            return
        self.last_ns = max(self.last_ns, now_ns)
        self.backlog += now_ns > self.end_ns
        latency_usec = (now_ns - request.due_ns) // 1000
        if failure:
            self.failures[failure] += 1
        if not failure:
            self.ok_usec.append(latency_usec)
        elif failure == "timeout":
            self.timeout_usec.append(latency_usec)

    def book_surplus(self, now_ns: int) -> None:
        """Note an answer that no request was made for."""
        if now_ns >= self.began_ns:
            self.failures["surplus answer"] += 1


class Generator:
    """Offers all streams from one epoll loop; ``run`` returns when every request is booked."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.streams = streams
        self.epoll = select.epoll()
        self.connections: dict[int, Connection] = {}
        self.lags_usec: list[int] = []
        self.began_ns = 0
        self.began_cpu_s = 0.0
        self.unbooked = sum(len(stream.arrivals) for stream in streams)
        self.expire_ns = 0  # no request times out before this
        self.with_room: list[Stream] = []  # streams that lost a connection while requests may be queued

    def run(self) -> None:
        """Send what is due, read what came, give up what is overdue, until nothing is left."""
        warmup_ns = max(stream.warmup_ns for stream in self.streams)
        start_ns = time.monotonic_ns() + LEAD_NS
        self.began_ns = start_ns + warmup_ns
        for stream in self.streams:
            stream.began_ns, stream.end_ns = self.began_ns, self.began_ns + stream.duration_ns
        # Streams whose warm-up is shorter start later, so that all are counted from the same moment.
        arrivals = [
            (self.began_ns - stream.warmup_ns + offset_ns, index)
            for index, stream in enumerate(self.streams)
            for offset_ns in stream.arrivals
        ]
        schedule = deque(sorted([*arrivals, (self.began_ns, BEGIN)]))
        while True:
            now_ns = time.monotonic_ns()
            while schedule and schedule[0][0] <= now_ns:
                due_ns, index = schedule.popleft()
                if index == BEGIN:
                    self.began_cpu_s = time.process_time()
                    print(self.began_ns, flush=True)
                else:
                    self.arrive(self.streams[index], due_ns)
            if now_ns >= self.expire_ns:
                self.expire(now_ns)
            self.refill()
            if not self.unbooked:
                return
            next_ns = schedule[0][0] if schedule else self.expire_ns
            self.wait((min(next_ns, self.expire_ns) - now_ns) / 1e9)

    def wait(self, timeout_s: float) -> None:
        """Wait for an event or the timeout, and act on the events."""
        # epoll's own timeout counts in milliseconds, a good part of a container's latency; select's on the
        # epoll descriptor counts in microseconds.
        if not select.select([self.epoll], [], [], max(timeout_s, 0.0))[0]:
            return
        for number, event in self.epoll.poll(0):
            connection = self.connections.get(number)
            if connection is None:
                continue
            if connection.unsent and event & ~select.EPOLLIN:
                self.send(connection)
            elif event & ~select.EPOLLOUT:
                self.receive(connection)

    def arrive(self, stream: Stream, due_ns: int) -> None:
        """Send a request that is due, or queue it when every connection is taken."""
        counted = due_ns >= self.began_ns
        request = Request(due_ns, counted)
        if counted:
            self.lags_usec.append((time.monotonic_ns() - due_ns) // 1000)
        stream.unanswered.append(request)
        self.expire_ns = min(self.expire_ns, due_ns + stream.timeout_ns)
        if stream.idle:
            self.begin(stream.idle.pop(), request)
        elif stream.open < stream.limit:
            self.open(stream, request)
        else:
            stream.queue.append(request)

    def open(self, stream: Stream, request: Request) -> None:
        """Open a connection for ``request``; its latency includes that."""
        try:
            sock = socket.socket(stream.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            self.finish(stream, request, f"socket: {name_reason(error)}", time.monotonic_ns())
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(stream, sock)
        connection.request = request
        connection.unsent = stream.message
        request.connection = connection
        stream.open += 1
        stream.opened += 1
        self.connections[connection.number] = connection
        self.epoll.register(connection.number, connection.watched)
        problem = sock.connect_ex(stream.address)
        if problem not in (0, EINPROGRESS):
            self.fail(connection, f"connect: {errorcode.get(problem, problem)}")

    def begin(self, connection: Connection, request: Request) -> None:
        """Send ``request`` on an idle connection."""
        connection.request = request
        connection.unsent = connection.stream.message
        request.connection = connection
        self.send(connection)

    def send(self, connection: Connection) -> None:
        """Send what is unsent; watch for room to send only as long as something remains."""
        before = connection.unsent
        try:
            sent = connection.socket.send(before)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            first = connection.stream.message is before
            self.fail(connection, f"{'connect' if first else 'send'}: {name_reason(error)}")
            return
        connection.unsent = before[sent:]
        wanted = select.EPOLLIN | (select.EPOLLOUT if connection.unsent else 0)
        if wanted != connection.watched:
            connection.watched = wanted
            self.epoll.modify(connection.number, wanted)

    def receive(self, connection: Connection) -> None:
        """Read what arrived; book the request when its response is complete."""
        reader = connection.reader
        try:
            data = connection.socket.recv(262144)
            complete = reader.feed(data) if data and connection.request else reader.close()
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(connection, f"receive: {name_reason(error)}")
            return
        except MalformedResponse:
            self.fail(connection, "malformed response")
            return
        if complete:
            self.complete(connection)
        elif not data or connection.request is None:
            if data:
                connection.stream.book_surplus(time.monotonic_ns())
            self.fail(connection, "connection closed" if reader.untouched else "response cut short")

    def complete(self, connection: Connection) -> None:
        """Book a response that is in, and give the connection to the next request or keep it."""
        stream, reader, request = connection.stream, connection.reader, connection.request
        assert request is not None
        failure = "" if reader.status == stream.expect_status else f"status {reader.status}"
        failure = "surplus answer" if reader.surplus else failure
        self.finish(stream, request, failure, time.monotonic_ns())
        connection.request = None
        if not reader.keep_alive:
            self.drop(connection)
            return
        reader.reset()
        if following := self.next_queued(stream):
            self.begin(connection, following)
        else:
            stream.idle.append(connection)

    def fail(self, connection: Connection, failure: str) -> None:
        """Give up a connection that is of no more use: its request, if it carries one, has failed."""
        if connection.request is not None:
            self.finish(connection.stream, connection.request, failure, time.monotonic_ns())
            connection.request = None
        else:
            with contextlib.suppress(ValueError):
                connection.stream.idle.remove(connection)
        self.drop(connection)

    def drop(self, connection: Connection) -> None:
        """Close a connection that carries nothing; a queued request may get a new one in its place."""
        del self.connections[connection.number]
        connection.socket.close()
        connection.reader.reset()
        connection.stream.open -= 1
        self.with_room.append(connection.stream)

    def refill(self) -> None:
        """Open connections for queued requests where others were dropped."""
        while self.with_room:
            stream = self.with_room.pop()
            while stream.open < stream.limit and (request := self.next_queued(stream)):
                self.open(stream, request)

    def next_queued(self, stream: Stream) -> Request | None:
        """Take the oldest queued request that has not timed out."""
        while stream.queue:
            request = stream.queue.popleft()
            if not request.done:
                return request
        return None

    def expire(self, now_ns: int) -> None:
        """Fail what has waited too long, and find out when the next request will have."""
        self.expire_ns = now_ns + EXPIRY_NS
        for stream in self.streams:
            unanswered = stream.unanswered
            while unanswered:
                request = unanswered[0]
                deadline_ns = request.due_ns + stream.timeout_ns
                if not request.done and deadline_ns > now_ns:
                    self.expire_ns = min(self.expire_ns, deadline_ns)
                    break
                unanswered.popleft()
                if request.connection is not None:
                    self.fail(request.connection, "timeout")
                elif not request.done:
                    self.finish(stream, request, "timeout", now_ns)

    def finish(self, stream: Stream, request: Request, failure: str, now_ns: int) -> None:
        """End a request: ``failure`` is why it failed, empty for a success."""
        request.done = True
        request.connection = None
        self.unbooked -= 1
        stream.book(request, failure, now_ns)

    def report(self) -> dict[str, object]:
        """Return what happened, ready for JSON; moments are nanoseconds of CLOCK_MONOTONIC."""
        return {
            "began_ns": self.began_ns,
            "lags_usec": self.lags_usec,
            "cpu_s": time.process_time() - self.began_cpu_s,
            "streams": [
                {
                    "ok_usec": stream.ok_usec,
                    "timeout_usec": stream.timeout_usec,
                    "failures": stream.failures,
                    "opened": stream.opened,
                    "backlog": stream.backlog,
                    "last_ns": stream.last_ns,
                }
                for stream in self.streams
            ],
        }


def name_reason(error: OSError) -> str:
    """Return an error's symbol, such as ECONNREFUSED."""
    return errorcode.get(error.errno or 0, str(error))


def settle() -> None:
    """Make this process punctual, and make it end with the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    # The workload keeps the processors busy; a generator that queues for one would measure its own delay. A nice
    # value is not enough: a fair scheduler lets a waking task wait for the end of the running one's slice (2 to
    # 4 ms seen on two busy processors, 0.2 ms as a real-time task).
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Offer the loads that stdin describes."""
    settle()
    generator = Generator([Stream(load) for load in json.load(sys.stdin)])
    gc.freeze()
    gc.disable()
    generator.run()
    json.dump(generator.report(), sys.stdout)


if __name__ == "__main__":
    main()
