"""Medians with their intervals, free of any assumption on the distribution, and without chance."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from msgspec import Struct

LEVEL = 0.95
# The chance that is taken of claiming something where there is nothing to be claimed.
RISK = 0.05
# The fewest values from which order statistics give a 95 % interval of the median: 1 - 2 / 2**6 = 0.969.
FEWEST = 6


class Estimate(Struct, frozen=True):
    """A value, with an interval from ``low`` to ``high`` that covers the true one with probability ``level``.

    ``n`` is the number of trials behind it. With fewer than ``FEWEST`` the interval is the trials' range, and
    ``level`` is what that range really covers (0 for a single trial); it is then no 95 % interval.

    ``effective`` is as how many independent trials they count, since neighbours have, or may have, something in common;
    None where trials are taken as independent without their having been able to show otherwise. ``related`` says that
    neighbours were found to resemble each other (testbed.statistics.correlation).
    """

    value: float
    low: float
    high: float
    n: int
    level: float
    effective: float | None = None
    related: bool = False

    @property
    def is_interval(self) -> bool:
        """Whether it is an interval of (at least) 95 %, and not merely the range of a few trials."""
        return self.level >= LEVEL

    @property
    def is_widened(self) -> bool:
        """Whether it is an interval that is wider because neighbours were found to resemble each other."""
        return self.is_interval and self.related and self.effective is not None


def estimate_median(values: Sequence[float], *, level: float = LEVEL) -> Estimate:
    """Return the median, with the narrowest symmetric interval of order statistics that covers at least ``level``.

    Free of any assumption on the distribution: the number of values below the true median is binomial(n, 1/2)
    (Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2). It assumes that the values are independent.
    Raises ValueError without values.
    """
    if not values:
        raise ValueError("a median needs a value")
    ordered = sorted(values)
    n = len(ordered)
    depth, covered, _ = find_depth(n, level)
    return Estimate(find_middle(ordered), ordered[depth], ordered[n - 1 - depth], n, covered)


@lru_cache(maxsize=1024)
def find_depth(n: int, level: float) -> tuple[int, float, float]:
    """Return how many of ``n`` values lie beyond each limit of the median's interval, what that interval covers, and
    what the next narrower one does.

    Counted in whole numbers, for beyond 1,029 values 2**n is no float.
    """
    missed = Fraction(1 - level).limit_denominator(10**6)
    most = 2**n * missed.numerator
    depth, tail = 0, 1  # tail: of 2**n equally likely patterns those with at most `depth` values below the median
    term = n
    while missed.denominator * 2 * (tail + term) <= most:
        depth, tail = depth + 1, tail + term
        term = term * (n - depth) // (depth + 1)
    covered, narrower = (max(0.0, 1 - float(Fraction(2 * of, 2**n))) for of in (tail, tail + term))
    return depth, covered, narrower


def find_middle(ordered: Sequence[float]) -> float:
    """Return the median of ascending values; each is halved before they are added, for the sum of large ones is no
    float."""
    n = len(ordered)
    return ordered[n // 2] if n % 2 else ordered[n // 2 - 1] / 2 + ordered[n // 2] / 2
