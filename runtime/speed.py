"""How fast this host is, measured: limits of time that are constants fail on a host that is itself emulated.

Limits of time are written down for an ordinary host and multiplied by ``factor``. It comes from a piece of ordinary
work (allocation, division, branches, in C, so that neither a tracer nor a newer interpreter changes much), timed by
the clock that the limits are counted on. So it is right in a machine that runs by ``-icount`` too, where that clock
counts instructions: there the work takes its number of instructions, and so does what the limits are for.

A host that is merely busy is not slow: the fastest of several rounds counts.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from msgspec import Struct

# What a round may take on a host that limits are written down for. Measured with Python 3.11 at 2.6 GHz (Xeon, 2023):
# 0.10 ms; a processor of half that speed still counts as ordinary.
REFERENCE_NS = 200_000
# A measurement that was itself stalled must not make limits endless.
MOST = 100.0
_ROUNDS = 5
# A clock that ticks more coarsely than a round lasts (jiffies, 4 ms) shows nothing: rounds are made longer then.
_LEAST_NS = 20_000
_SIZES = (1, 8, 64)


class Speed(Struct, frozen=True):
    """What was measured: ``round_ns`` of the clock for a round (0: the clock stood still), and the factor from it."""

    round_ns: int
    factor: float


def _work() -> None:
    list(map(int, " ".join(map(str, range(1000))).split()))


def measure(clock: Callable[[], int] = time.monotonic_ns, work: Callable[[], None] = _work) -> Speed:
    """Time the work now. It takes 0.5 ms on an ordinary host."""
    for size in _SIZES:
        took_ns = min(_time(clock, work, size) for _ in range(_ROUNDS))
        if took_ns >= _LEAST_NS:
            break
    round_ns = max(took_ns, 0) // size
    return Speed(round_ns, round(min(max(round_ns / REFERENCE_NS, 1.0), MOST), 2))


def _time(clock: Callable[[], int], work: Callable[[], None], times: int) -> int:
    began_ns = clock()
    for _ in range(times):
        work()
    return clock() - began_ns


@functools.cache
def measured() -> Speed:
    """Return the speed of this host as it was measured first in this process."""
    return measure()


def factor() -> float:
    """Return how many times slower this host is than limits of time are made for: at least 1."""
    return measured().factor


def scale(limit_s: float) -> float:
    """Return a limit of time, in seconds, as it is on this host."""
    return limit_s * factor()


def is_over(since_s: float, limit_s: float) -> bool:
    """Return whether ``limit_s``, as it is on this host, has passed since ``since_s`` (time.monotonic).

    Nothing is measured before an ordinary host's limit has passed, so it costs nothing where all goes well.
    """
    passed_s = time.monotonic() - since_s
    return passed_s > limit_s and passed_s > scale(limit_s)
