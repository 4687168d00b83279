"""Draws when the requests of an open-loop load are due, which depends on the seed and on nothing the server does."""

from __future__ import annotations

import random


def draw_poisson_arrivals(rate_per_s: float, duration_s: float, seed: int) -> list[int]:
    """Draw the nanoseconds after the start at which requests are due, ascending, all below ``duration_s``.

    A Poisson process seen through its count: given that n events fell into an interval, their times are
    n sorted uniform numbers (Ross, Stochastic Processes, 2nd ed., theorem 2.3.1). The count is fixed at
    ``rate_per_s * duration_s``, rounded, so that every trial of a rate offers exactly that rate.
    """
    generator = random.Random(seed)
    span_ns = duration_s * 1e9
    return sorted(int(generator.random() * span_ns) for _ in range(round(rate_per_s * duration_s)))
