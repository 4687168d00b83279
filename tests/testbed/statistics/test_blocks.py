"""Platforms of the same blocks. How often it is right: tests/benchmarks/test_coverage.py."""

from __future__ import annotations

import random

from testbed.statistics import compare_blocks


def test_a_host_that_drifts_is_compared_within_blocks() -> None:
    chance = random.Random(3)
    base = [(block, (1 + block / 10) * chance.lognormvariate(0, 0.01)) for block in range(20)]
    other = [(block, 1.1 * value * chance.lognormvariate(0, 0.01)) for block, value in base]
    compared = compare_blocks(base, other)
    assert (compared.paired, compared.verdict) == (True, "more")
    assert not compare_blocks(base[:8], other[:8]).paired, "eight pairs could reject too little"
    assert not compare_blocks(base, [(block + 100, value) for block, value in other]).paired, "no block is shared"


def test_a_host_that_is_quiet_is_compared_by_its_medians() -> None:
    base = [(block, 1 + 0.01 * (block % 2)) for block in range(20)]
    compared = compare_blocks(base, [(block, 2 * value) for block, value in base])
    assert (compared.paired, compared.verdict) == (False, "more")


def test_ratios_that_wander_within_blocks_have_a_wider_interval_and_a_mark() -> None:
    """One platform drifts by itself: no ratio within blocks is free of that."""
    base = [(block, 1 + 0.001 * (block % 3)) for block in range(12)]
    compared = compare_blocks(base, [(block, 0.9 + block / 30) for block in range(12)])
    assert (compared.paired, compared.verdict) == (True, "cannot tell")
    assert compared.ratio is not None and compared.ratio.is_widened
    assert compared.ratio.low < 0.91 and compared.ratio.high > 1.26
