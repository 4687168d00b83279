"""Two platforms that were measured in the same randomised blocks."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.statistics.comparison import MARGIN, Comparison, compare_medians, compare_pairs
from testbed.statistics.correlation import autocorrelation
from testbed.statistics.series import judge_drift

# Of fewer blocks the test within blocks could reject nothing in a family of 25 comparisons.
FEWEST_BLOCKS = 10

# A platform's values of one figure, each with its block, in the order of trials.
Blocks = Sequence[tuple[int, float]]


def compare_blocks(base: Blocks, other: Blocks, margin: float = MARGIN) -> Comparison:
    """Return how ``other`` compares with ``base``, by values with their blocks.

    Where trials resemble their neighbours, or drift, that is most likely the host's state, which all platforms of a
    block share: from ``FEWEST_BLOCKS`` on they are compared within blocks then. Their order within a block is random,
    so whatever the state does, it is in none of the differences but by chance. With fewer blocks the samples are
    compared as they are, which claims too little rather than too much as long as the state is shared
    (benchmarks/coverage.py).
    """
    first, second = ([value for _, value in values] for values in (base, other))
    of_base, of_other = dict(base), dict(other)
    shared = sorted(of_base.keys() & of_other.keys())
    moving = any(autocorrelation(values).found or judge_drift(values).found for values in (first, second))
    if not moving or len(shared) < FEWEST_BLOCKS:
        return compare_medians(first, second, margin)
    return compare_pairs([of_base[block] for block in shared], [of_other[block] for block in shared], margin)
