"""Draws when the requests of an open-loop load are due, which depends on the seed and on nothing the server does."""

from __future__ import annotations

import random
from bisect import bisect_right
from itertools import accumulate

from msgspec import Struct

KINDS = ("poisson", "constant", "ramp", "trace")


class Schedule(Struct, frozen=True):
    """How requests are spread over the time of a load.

    ``poisson``: at random, at a rate that stays; ``constant``: at equal distances; ``ramp``: at random, at a rate that
    changes evenly from ``from_per_s`` to the load's; ``trace``: at random, at the rate (requests/s) of the last of its
    steps that has begun, ``(t_s, rate_per_s)`` in order, the first at 0. A warm-up has the rate with which the load
    begins.
    """

    kind: str = "poisson"
    from_per_s: float = 0.0
    trace: tuple[tuple[float, float], ...] = ()


class Piece(Struct, frozen=True):
    """A part of a load's time in which its rate (requests/s) changes evenly."""

    duration_s: float
    begin_per_s: float
    end_per_s: float

    @property
    def requests(self) -> float:
        """How many requests are expected in it."""
        return self.duration_s * (self.begin_per_s + self.end_per_s) / 2

    def find_time_s(self, requests: float) -> float:
        """Return after which time so many are expected: the root of begin t + (end - begin) t^2 / (2 duration)."""
        growth = (self.end_per_s - self.begin_per_s) / self.duration_s
        root = (self.begin_per_s**2 + 2 * growth * requests) ** 0.5
        return 2 * requests / (self.begin_per_s + root) if requests else 0.0


def list_pieces(schedule: Schedule, rate_per_s: float, duration_s: float, warmup_s: float = 0.0) -> tuple[Piece, ...]:
    """Return the rate of a load over its time, warm-up first."""
    if schedule.kind == "ramp":
        pieces = [Piece(duration_s, schedule.from_per_s, rate_per_s)]
    elif schedule.kind == "trace":
        begun = [step for step in schedule.trace if step[0] < duration_s]
        ends = [*(t_s for t_s, _ in begun[1:]), duration_s]
        pieces = [Piece(end_s - t_s, rate, rate) for (t_s, rate), end_s in zip(begun, ends, strict=True)]
    else:
        pieces = [Piece(duration_s, rate_per_s, rate_per_s)]
    if warmup_s:
        pieces.insert(0, Piece(warmup_s, pieces[0].begin_per_s, pieces[0].begin_per_s))
    return tuple(pieces)


def count_requests(schedule: Schedule, rate_per_s: float, duration_s: float, warmup_s: float = 0.0) -> int:
    """Return how many requests such a load has."""
    return round(sum(piece.requests for piece in list_pieces(schedule, rate_per_s, duration_s, warmup_s)))


def draw_arrivals(
    schedule: Schedule, rate_per_s: float, duration_s: float, seed: int, warmup_s: float = 0.0
) -> list[int]:
    """Draw the nanoseconds after the start at which requests are due, ascending, below ``warmup_s + duration_s``."""
    if schedule.kind == "poisson":
        return draw_poisson_arrivals(rate_per_s, warmup_s + duration_s, seed)
    pieces = list_pieces(schedule, rate_per_s, duration_s, warmup_s)
    count = count_requests(schedule, rate_per_s, duration_s, warmup_s)
    if schedule.kind == "constant":
        return [int(number / rate_per_s * 1e9) for number in range(count)]
    generator = random.Random(seed)
    # A Poisson process whose rate changes is an even one in the time that is measured in expected requests (Ross,
    # Stochastic Processes, 2nd ed., section 2.4).
    begins = [0.0, *accumulate(piece.requests for piece in pieces)]
    starts_s = [0.0, *accumulate(piece.duration_s for piece in pieces)]
    end_ns = int(starts_s[-1] * 1e9)
    arrivals = []
    for expected in sorted(generator.random() * begins[-1] for _ in range(count)):
        index = min(bisect_right(begins, expected), len(pieces)) - 1
        at_s = starts_s[index] + pieces[index].find_time_s(expected - begins[index])
        arrivals.append(min(int(at_s * 1e9), end_ns - 1))
    return arrivals


def draw_poisson_arrivals(rate_per_s: float, duration_s: float, seed: int) -> list[int]:
    """Draw the nanoseconds after the start at which requests are due, ascending, all below ``duration_s``.

    A Poisson process seen through its count: given that n events fell into an interval, their times are
    n sorted uniform numbers (Ross, Stochastic Processes, 2nd ed., theorem 2.3.1). The count is fixed at
    ``rate_per_s * duration_s``, rounded, so that every trial of a rate offers exactly that rate.
    """
    generator = random.Random(seed)
    span_ns = duration_s * 1e9
    return sorted(int(generator.random() * span_ns) for _ in range(round(rate_per_s * duration_s)))
