"""Draws no more than can be seen: of many values those that show how they are distributed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

_T = TypeVar("_T")


def thin_ranks(values: Sequence[float], most: int) -> list[float]:
    """Return the values in order, of more than ``most`` so many, evenly by rank, the least and the greatest among
    them."""
    ordered = sorted(values)
    if len(ordered) <= most:
        return ordered
    return [ordered[round(at * (len(ordered) - 1) / (most - 1))] for at in range(most)]


def pick_evenly(items: Sequence[_T], most: int) -> Sequence[_T]:
    """Return the items, of more than ``most`` so many, evenly, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(at * (len(items) - 1) / (most - 1))] for at in range(most)]


def thin_series(
    points: Sequence[tuple[float, float]], most: int, choose: Callable[[Iterable[float]], float]
) -> list[tuple[float, float]]:
    """Return a series of at most so many points: each the last time of neighbours, and what ``choose`` makes of their
    values."""
    if len(points) <= most:
        return list(points)
    edges = [round(at * len(points) / most) for at in range(most + 1)]
    groups = [points[first:last] for first, last in pairwise(edges)]
    return [(group[-1][0], choose(value for _, value in group)) for group in groups]
