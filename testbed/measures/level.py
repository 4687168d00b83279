"""Decides whether a service level held: from counts of requests, with a bound on what chance could have done.

A p99 of 250 ms says that at most 1 % of requests may be slower. Of ten requests none tells whether that is so, and of a
hundred the slowest decides; so the fraction that was too slow is judged by its interval (Clopper and Pearson), not by
the percentile that was seen. The interval takes requests as independent of each other. They are not: one pause of the
host makes a row of them slow. Therefore nothing breaks by what one window saw, however much of it was slow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from testbed.scenario.model import Slo

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram

Verdict = Literal["held", "broke", "undecided"]

# How often a step may be looked at, and how sure its verdict is: a level that holds is called broken, or the other way
# round, in at most so many of all steps. Each look could end it, so each has its part (Bonferroni) of each side.
MOST_WINDOWS = 4
# The warm-up of a further look: the step has been under this load already, only the connections are new.
AGAIN_WARMUP_S = 1.0
CONFIDENCE = 0.95
SIDE_ERROR = (1 - CONFIDENCE) / 2 / MOST_WINDOWS
# A p99: the fraction of the requests that may be slower.
SLOW_FRACTION = 0.01
# Of a level that allows no failure at all nothing can show that it holds. It counts as held after so many requests.
ENOUGH_REQUESTS = 1000
_STEPS = 60  # of bisection: 2^-60 is less than a double's last digit of 1
_MOST_TERMS = 100_000
_TINY = 1e-300


class Window(Struct, frozen=True):
    """Requests of one window: ``answered`` (or timed out), of these the ``slow`` ones, ``offered`` in all, of these the
    ``failed`` ones."""

    answered: int
    slow: int
    offered: int
    failed: int


class Judged(Struct, frozen=True):
    """A step's verdict, the interval (0 to 1) of its fraction of slow requests, and in words what decided."""

    verdict: Verdict
    slow_low: float
    slow_high: float
    reason: str


def count_slower(latencies: HdrHistogram, limit_ms: float) -> int:
    """Return how many latencies, in microseconds to the histogram's three digits, are above a limit."""
    limit_usec = limit_ms * 1e3
    return sum(
        item.count_at_value_iterated_to
        for item in latencies.get_recorded_iterator()
        if latencies.get_lowest_equivalent_value(item.value_iterated_to) > limit_usec
    )


def compute_beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function, for 0 < x < 1 and positive a and b, to about 10 digits.

    By its continued fraction (DLMF 8.17.22), evaluated as Lentz did (Numerical Recipes, 3rd edition, 5.2 and 6.4).
    """
    if x > (a + 1) / (a + b + 2):
        return 1.0 - compute_beta(1 - x, b, a)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            c, d = _away(1 + term / c), 1 / _away(1 + term * d)
            fraction *= c * d
        if abs(c * d - 1) < 1e-12:
            break
    return math.exp(scale) * fraction / a


def _away(value: float) -> float:
    """Return the value, or one that can be divided by."""
    return value if abs(value) > _TINY else _TINY


@lru_cache(1024)
def bound_fraction(bad: int, of: int, side_error: float = SIDE_ERROR) -> tuple[float, float]:
    """Return an interval that misses a fraction on either side with at most ``side_error``; 0 to 1 of nothing.

    The exact one of Clopper and Pearson (Biometrika 26, 1934): its ends are those fractions under which so many
    ``bad`` or more, so many or less, have that probability. That the binomial's tail is an incomplete beta function is
    DLMF 8.17.5.
    """
    if not 0 <= bad <= of:
        raise ValueError(f"{bad} of {of} is no part of it")
    low = 0.0 if bad == 0 else _solve(bad, of - bad + 1, side_error)
    high = 1.0 if bad == of else _solve(bad + 1, of - bad, 1 - side_error)
    return low, high


def _solve(a: float, b: float, probability: float) -> float:
    """Return where the regularised incomplete beta function, which rises with x, has that value."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if compute_beta(middle, a, b) < probability else (low, middle)
    return (low + high) / 2


def judge(windows: Sequence[Window], slo: Slo) -> Judged:
    """Return what all windows of a step say together.

    It broke when it is above a limit for sure, even without the window that was worst: one window alone can be a
    hiccup of the host, and breaks nothing. It held when it is below both limits for sure, with all windows.
    """
    slow = [(one.slow, one.answered) for one in windows]
    failed = [(one.failed, one.offered) for one in windows]
    low, high = bound_fraction(*_add(slow))
    told = [
        (judge_fraction(slow, SLOW_FRACTION), f"slower than {slo.p99_ms:g} ms", slow, SLOW_FRACTION),
        (judge_fraction(failed, slo.error_fraction), "failed", failed, slo.error_fraction),
    ]
    for wanted in ("broke", "undecided", "held"):
        for verdict, what, counts, limit in told:
            if verdict == wanted:
                return Judged(verdict, low, high, _describe(verdict, what, counts, limit))
    raise AssertionError("there are three verdicts")


def judge_fraction(counts: Sequence[tuple[int, int]], limit: float) -> Verdict:
    """Return whether a fraction is within a limit, from the (bad, of) of each window."""
    bad, of = _add(counts)
    if len(counts) > 1 and bound_fraction(*_add(_without_worst(counts)))[0] > limit:
        return "broke"
    if limit == 0:
        return "held" if bad == 0 and of >= ENOUGH_REQUESTS else "undecided"
    return "held" if bound_fraction(bad, of)[1] < limit or limit >= 1 else "undecided"


def wants_another(windows: Sequence[Window], slo: Slo) -> bool:
    """Return whether another window should be looked at: nothing is decided, and it can be in as many as there may be.

    Where windows like those so far could not decide, because requests are few, more of them are only time lost.
    """
    looked = len(windows)
    if looked >= MOST_WINDOWS or judge(windows, slo).verdict != "undecided":
        return False
    slow = [(one.slow, one.answered) for one in windows]
    failed = [(one.failed, one.offered) for one in windows]
    fates = [_fates(slow, SLOW_FRACTION), _fates(failed, slo.error_fraction)]
    return any("broke" in fate for fate in fates) or all("held" in fate for fate in fates)


def count_windows(requests: int, slo: Slo) -> int:
    """Return in how many windows a step is looked at that has so many requests in each, none of them slow."""
    windows = [Window(requests, 0, requests, 0)]
    while wants_another(windows, slo):
        windows.append(windows[0])
    return len(windows)


def _fates(counts: Sequence[tuple[int, int]], limit: float) -> set[Verdict]:
    """Return how a fraction may end: with further windows as bad as those so far on average, or with good ones."""
    bad, of = _add(counts)
    more = MOST_WINDOWS - len(counts)
    mean_bad, mean_of = round(bad / len(counts)), round(of / len(counts))
    return {judge_fraction([*counts, *[(each, mean_of)] * more], limit) for each in (0, mean_bad)}


def _add(counts: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return sum(bad for bad, _ in counts), sum(of for _, of in counts)


def _without_worst(counts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    worst = max(range(len(counts)), key=lambda index: counts[index][0] / max(counts[index][1], 1))
    return [one for index, one in enumerate(counts) if index != worst]


def _describe(verdict: Verdict, what: str, counts: Sequence[tuple[int, int]], limit: float) -> str:
    bad, of = _add(counts)
    low, high = bound_fraction(bad, of)
    windows = f" in {len(counts)} windows" if len(counts) > 1 else ""
    ending = {"broke": "more than", "undecided": "too few to tell from", "held": "within"}[verdict]
    return f"{bad} of {of} requests{windows} {what} ({low:.1%} to {high:.1%}), {ending} {limit * 100:.3g}%"
