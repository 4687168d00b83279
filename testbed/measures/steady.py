"""When latency is steady after a start: requests on a schedule, and the rule that finds the end of the transient.

The rule is MSER-5 (K. P. White, An effective truncation heuristic for bias reduction in simulation output, Simulation
69(6), 1997): latencies are taken in batches of five, and of all beginnings that could be cut off that one is which
leaves the smallest standard error of the mean of the rest. As S. Hoad, S. Robinson and R. Davies (Automating warm-up
length estimation, Journal of the Operational Research Society 61(9), 2010) have it, at least five batches are left,
and where more than half would be cut off, no end of the transient is in sight. A batch is represented by its median
here, not by its mean: one request that was stalled is no change of the level.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from statistics import fmean, median

from msgspec import Struct

from testbed.load.http1 import MalformedResponse, ResponseReader
from testbed.load.open_loop import Target
from testbed.load.requests import find_main, is_expected
from testbed.scenario.settings import Load

BATCH = 5
LEFT_BATCHES = 5
# Of fewer, what leaves five is never more than half.
FEWEST_BATCHES = 2 * LEFT_BATCHES + 1
RATE_PER_S = 25.0
# The window is a part of a load's, which a scenario chooses, full or quick.
WINDOW_FRACTION, LONGEST_S = 0.6, 10.0
_TIMEOUT_S = 5.0
_PIECE_BYTES = 65536


class Answered(Struct, frozen=True):
    """A request on the schedule: when it was ``due`` (CLOCK_MONOTONIC), and the seconds from then until its answer was
    complete."""

    due_ns: int
    latency_s: float


def find_steady(latencies_s: Sequence[float]) -> int | None:
    """Return the index of the first latency of the steady part; None when there are too few, or when none is found."""
    batches = [median(latencies_s[at : at + BATCH]) for at in range(0, len(latencies_s) - BATCH + 1, BATCH)]
    if len(batches) < FEWEST_BATCHES:
        return None
    errors = [_squared_error(batches[cut:]) for cut in range(len(batches) - LEFT_BATCHES + 1)]
    cut = errors.index(min(errors))
    return None if 2 * cut > len(batches) else cut * BATCH


def choose_window_s(load: Load) -> float:
    """Return for how long a start's latency is watched."""
    return min(LONGEST_S, WINDOW_FRACTION * load.duration_s)


def _squared_error(rest: Sequence[float]) -> float:
    """Return the squared standard error of a mean, as MSER has it: the sum of squared deviations over n squared."""
    mean = fmean(rest)
    return sum((value - mean) ** 2 for value in rest) / len(rest) ** 2


def watch_latency(target: Target, window_s: float, watch: Callable[[], None] = lambda: None) -> list[Answered]:
    """Send requests to the target at ``RATE_PER_S`` for so long, one after the other on a connection that is kept, and
    return those that were answered as they should, in order. Of a mix it is the main request that is sent.

    Latency counts from when a request was due, so that what is due during a stall waits for its end. ``watch`` is
    called between requests and may raise. A request without an answer within 5 s ends the watching.
    """
    began_ns = time.monotonic_ns()
    answered: list[Answered] = []
    connection = _Connection(target)
    try:
        for number in range(round(window_s * RATE_PER_S)):
            due_ns = began_ns + round(number / RATE_PER_S * 1e9)
            time.sleep(max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
            if time.monotonic_ns() > began_ns + round((window_s + _TIMEOUT_S) * 1e9):
                break
            watch()
            if is_expected(connection.request(), find_main(target.requests).expect_status):
                answered.append(Answered(due_ns, (time.monotonic_ns() - due_ns) / 1e9))
    except TimeoutError:
        pass
    finally:
        connection.close()
    return answered


class _Connection:
    """A connection that is made again when the server has closed it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        request = find_main(target.requests)
        self._reader = ResponseReader(request.is_bodiless)
        self._socket: socket.socket | None = None
        self._message = request.compose(target.address, target.port)

    def request(self) -> int:
        """Ask once; return the answer's status, 0 when there was none. Raises TimeoutError when none comes in time."""
        deadline_s = time.monotonic() + _TIMEOUT_S
        is_kept = self._socket is not None
        status = self._ask(deadline_s)
        if not status and is_kept and self._reader.untouched:  # the server had closed it, as it may at any time
            status = self._ask(deadline_s)
        return status

    def _ask(self, deadline_s: float) -> int:
        self._reader.reset()
        try:
            if self._socket is None:
                address = (self._target.address, self._target.port)
                self._socket = socket.create_connection(address, timeout=_TIMEOUT_S)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(self._message)
            self._receive(self._socket, deadline_s)
        except TimeoutError:
            raise
        except (OSError, MalformedResponse):
            self.close()
            return 0
        if not self._reader.keep_alive:
            self.close()
        return self._reader.status

    def _receive(self, connection: socket.socket, deadline_s: float) -> None:
        while True:
            connection.settimeout(max(0.001, deadline_s - time.monotonic()))
            data = connection.recv(_PIECE_BYTES)
            if self._reader.feed(data) if data else self._reader.close():
                return
            if not data:
                raise ConnectionResetError
            if time.monotonic() > deadline_s:
                raise TimeoutError

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
