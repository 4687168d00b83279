"""Computes what copies of an application take, from the steps of density ramps: the first, and each further one.

The first copy brings what is there only once (a shared library's pages, QEMU's program, page cache); a line through the
empty host would charge it to all of them. What a further copy takes is the difference between two steps. Differences
are used, not the running total: in a total, what one step has by chance stays in all later ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from testbed.statistics import Estimate, MeanEstimate, estimate_mean, estimate_median_of_series

# A ruler, and the column of a ramp's samples that it is read from.
COLUMNS: Mapping[str, str] = {
    "memory_cgroup": "cgroup_bytes",
    "memory_pss": "pss_bytes",
    "memory_available": "available_bytes",
    "memory_metered": "metered_bytes",
}
RULERS = tuple(COLUMNS)
# The host's MemAvailable counts what is left.
_LEFT = "available_bytes"

Columns = Mapping[str, Sequence[float]]


class CopyMemory(Struct, frozen=True):
    """Bytes that copies take by one ruler, over ``ramps`` ramps: ``first`` is the median of the first copies,
    ``further`` the mean of all differences between steps, None where no ramp has a second copy.
    """

    first: Estimate
    further: MeanEstimate | None
    ramps: int


def taken_bytes(columns: Columns, ruler: str) -> tuple[tuple[float, float], ...]:
    """Return, for each step of a ramp whose values are numbers, the copies running and the bytes taken since there was
    none."""
    column = COLUMNS[ruler]
    steps = [
        (copies, value)
        for copies, value in zip(columns.get("applications", ()), columns.get(column, ()), strict=False)
        if math.isfinite(copies) and math.isfinite(value)
    ]
    if column == _LEFT and steps:
        full = steps[0][1]
        steps = [(copies, full - value) for copies, value in steps]
    return tuple(steps)


def first_bytes(columns: Columns, ruler: str) -> float | None:
    """Return what the first copy of a ramp takes; None for a ramp without one."""
    return _first(taken_bytes(columns, ruler))


def _first(steps: Sequence[tuple[float, float]]) -> float | None:
    taken = dict(steps)
    return taken[1] - taken[0] if 0 in taken and 1 in taken else None


def further_bytes(columns: Columns, ruler: str) -> tuple[float, ...]:
    """Return what each copy after the first adds."""
    return _further(taken_bytes(columns, ruler))


def _further(steps: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    return tuple(after - before for (n, before), (m, after) in pairwise(steps) if n >= 1 and m == n + 1)


def copy_memory(ramps: Iterable[Columns], ruler: str) -> CopyMemory | None:
    """Return the memory of copies from all ramps; None without a ramp that has a copy.

    ``further`` takes the copies in their order, ramp after ramp; errors of reading, which two neighbouring differences
    share with opposite signs, make its interval too wide, never too narrow. No copy takes less
    than nothing: estimates end at 0, and a mean whose whole interval is below it is none.
    """
    steps = [taken_bytes(ramp, ruler) for ramp in ramps]
    firsts = [first for of in steps if (first := _first(of)) is not None]
    if not firsts:
        return None
    differences = [difference for of in steps for difference in _further(of)]
    typical = estimate_median_of_series([max(0.0, value) for value in firsts])
    return CopyMemory(typical, _not_negative(estimate_mean(differences)) if differences else None, len(firsts))


def _not_negative(mean: MeanEstimate) -> MeanEstimate | None:
    if mean.low is None or mean.high is None:
        return mean if mean.value >= 0 else None
    if mean.high < 0:
        return None
    return replace(mean, value=max(0.0, mean.value), low=max(0.0, mean.low))
