"""The shape of a server's day: how its rate of requests moves about its mean, and where in its day a server is.

A day is as long as the window in which it is looked at. Queues form and drain within milliseconds, so a rate that
moves over seconds is quasi-stationary, and a day of five seconds loads a host as one of hours would (while caches,
timers and whatever else the length of a day matters to are not part of it).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from testbed.load.arrivals import Schedule

SHAPES = ("constant", "diurnal", "trace")
# A day is divided into so many steps of an even rate.
_HOURS = 24
# The part of a circle by which each server's day is later than that of the one before: with the golden ratio, any
# number of points lie about evenly (R. L. Graham and J. H. van Lint, On the distribution of n theta modulo 1, Canadian
# Journal of Mathematics 20, 1968).
_GOLDEN = (math.sqrt(5) - 1) / 2
_STEPS = 60  # of bisection

# Parts of a day (0 to 1) at which a rate begins, ascending, the first at 0, and the rate as a part of the mean.
Curve = tuple[tuple[float, float], ...]


def make_diurnal(peak_to_mean: float) -> Curve:
    """Return a day whose busiest hour has ``peak_to_mean`` (above 1) times the mean rate, and that is calm half a day
    later.

    It is the von Mises curve exp(k cos x): it has one peak, which may be as high as wanted, and is nowhere below 0, as
    a sine of more than twice the mean would be.
    """
    low, high = 0.0, 50.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if max(_von_mises(middle)) < peak_to_mean else (low, middle)
    rates = _von_mises(high)
    return tuple((hour / _HOURS, rate) for hour, rate in enumerate(rates))


def _von_mises(concentration: float) -> list[float]:
    """Return the hours' rates with a mean of 1, the busiest at noon."""
    angles = [2 * math.pi * (hour - _HOURS / 2) / _HOURS for hour in range(_HOURS)]
    values = [math.exp(concentration * (math.cos(angle) - 1)) for angle in angles]
    return [value * _HOURS / sum(values) for value in values]


def normalise_trace(trace: Sequence[tuple[float, float]]) -> Curve:
    """Return a trace of rates, ``(t_s, rate_per_s)`` in order from 0 on, as a day with a mean of 1.

    Its last rate holds as long as the one before it. Raises ValueError when all rates are 0.
    """
    last_s = trace[-1][0] - trace[-2][0] if len(trace) > 1 else 1.0
    length_s = trace[-1][0] + last_s
    ends_s = [*(t_s for t_s, _ in trace[1:]), length_s]
    requests = sum(rate * (end_s - t_s) for (t_s, rate), end_s in zip(trace, ends_s, strict=True))
    if requests <= 0:
        raise ValueError("all rates are 0")
    return tuple((t_s / length_s, rate * length_s / requests) for t_s, rate in trace)


def find_phase(server: int) -> float:
    """Return how late (0 to 1 of it) in its day a server is when a window begins; servers are counted from 0."""
    return server * _GOLDEN % 1.0


def schedule_day(curve: Curve, rate_per_s: float, day_s: float, phase: float) -> Schedule:
    """Return when requests are due in a window of one day that begins at a ``phase`` of it, with that mean rate; at
    random at an even rate where there is no curve."""
    if not curve:
        return Schedule()
    under_way = max(step for step in curve if step[0] <= phase)
    turned = sorted(((begin - phase) % 1.0, rate) for begin, rate in curve if begin != under_way[0])
    steps = [(0.0, under_way[1]), *turned, (1.0 - phase + under_way[0], under_way[1])]
    return Schedule("trace", trace=tuple((begin * day_s, rate * rate_per_s) for begin, rate in steps if begin < 1.0))
