"""Is there a difference, is there none that matters, or can nobody tell?

A claim needs two things that can fail independently: a test by ranks, which is exact and can reject from four trials
on, adjusted for all comparisons that are made beside it; and the interval of the ratio of medians, which holds whatever
shape the distributions have and is what the reader sees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from testbed.statistics.contrasts import estimate_median_difference, estimate_median_ratio
from testbed.statistics.correlation import (
    FEWEST_TO_SHOW,
    autocorrelation,
    estimate_median_of_series,
    find_inflation,
)
from testbed.statistics.medians import FEWEST, RISK, Estimate
from testbed.statistics.ranks import compare_order, hodges_lehmann, judge_below, judge_signs_below

# A ratio between 1 / (1 + MARGIN) and 1 + MARGIN is a difference that does not matter.
MARGIN = 0.05
# The chance that a difference of the smallest size that could have been seen would have been seen.
POWER = 0.8
_LARGEST = 300.0  # of the logarithm of a ratio: beyond, there is none

Verdict = Literal["more", "less", "equivalent", "cannot tell"]


class Equivalence(Struct, frozen=True):
    """Whether two medians differ by no more than ``margin``: ``p_value`` that they do, and the interval of 90 % of
    their ratio, from ``low`` to ``high``, which must lie within the margin."""

    margin: float
    p_value: float
    low: float
    high: float

    @property
    def within(self) -> bool:
        """Whether the interval lies within the margin."""
        return 1 / (1 + self.margin) <= self.low and self.high <= 1 + self.margin


class Comparison(Struct, frozen=True):
    """One sample against a baseline.

    ``ratio`` is other / base (None where a value is not positive), ``difference`` that of the medians, ``shift`` that
    of Hodges and Lehmann, both other - base. ``p_value`` is that of no difference, ``equivalence`` that of one beyond
    the margin; after ``judge_family`` both are adjusted for ``family`` comparisons. ``verdict``: the other is ``more``
    or ``less`` than the baseline, ``equivalent`` within the margin, or nobody can tell, and ``why``. ``smallest`` is
    the smallest relative difference that would have been seen four times in five; None where none would have been.
    """

    ratio: Estimate | None
    difference: Estimate
    shift: Estimate
    p_value: float
    equivalence: Equivalence | None
    verdict: Verdict
    smallest: float | None
    n_base: int
    n_other: int
    family: int = 1
    why: str = ""
    paired: bool = False


def compare_medians(base: Sequence[float], other: Sequence[float], margin: float = MARGIN) -> Comparison:
    """Return how ``other`` compares with ``base``: two samples, each in the order in which its trials were made.

    Raises ValueError for a side without values.
    """
    if not base or not other:
        raise ValueError("a comparison needs values on both sides")
    positive = min(min(base), min(other)) > 0
    return _judge(
        Comparison(
            ratio=estimate_median_ratio(other, base) if positive else None,
            difference=estimate_median_difference(other, base),
            shift=hodges_lehmann(base, other),
            p_value=compare_order(base, other, _inflate(base, other)),
            equivalence=judge_equivalence(base, other, margin) if positive else None,
            verdict="cannot tell",
            smallest=_smallest(base, other) if positive else None,
            n_base=len(base),
            n_other=len(other),
        )
    )


def _inflate(*samples: Sequence[float]) -> float:
    """Return the inflation that a test allows for: that of samples in which neighbours were found to be related.

    An interval allows for more, and a verdict needs both. If a test did, ten trials a side that do not overlap would
    not be enough to tell them apart among the comparisons of a run.
    """
    return fmean(
        find_inflation(values, related)
        if len(values) >= FEWEST_TO_SHOW and (related := autocorrelation(values)).found
        else 1.0
        for values in samples
    )


def compare_pairs(base: Sequence[float], other: Sequence[float], margin: float = MARGIN) -> Comparison:
    """Return how ``other`` compares with ``base`` where ``base[i]`` and ``other[i]`` were measured side by side.

    All is of the pairs then: ``ratio`` is the median of their ratios, ``difference`` and ``shift`` that of their
    differences, and the test is Wilcoxon's of signed ranks. So what both of a pair have in common, such as the state of
    the host, is in none of them. Raises ValueError where the sides have no values or not the same number of them.
    """
    if not base or len(base) != len(other):
        raise ValueError("pairs need as many values on both sides, and one at least")
    positive = min(min(base), min(other)) > 0
    difference = estimate_median_of_series([b - a for a, b in zip(base, other, strict=True)])
    ratio = estimate_median_of_series([b / a for a, b in zip(base, other, strict=True)]) if positive else None
    return _judge(
        Comparison(
            ratio=ratio,
            difference=difference,
            shift=difference,
            p_value=min(1.0, 2 * min(_judge_pairs(base, other, 0.0), _judge_pairs(other, base, 0.0))),
            equivalence=_judge_equal_pairs(base, other, margin) if positive else None,
            verdict="cannot tell",
            smallest=_find_smallest(_log_width(ratio) / 2) if ratio and ratio.is_interval else None,
            n_base=len(base),
            n_other=len(other),
            paired=True,
        )
    )


def _judge_pairs(base: Sequence[float], other: Sequence[float], margin: float) -> float:
    """Return the p value that is small when ``other`` tends to be below 1 + margin times its partner in ``base``."""
    if min(min(base), min(other)) <= 0:
        return judge_signs_below([b - a for a, b in zip(base, other, strict=True)])
    limit = math.log1p(margin)
    return judge_signs_below([math.log(b) - math.log(a) - limit for a, b in zip(base, other, strict=True)])


def _judge_equal_pairs(base: Sequence[float], other: Sequence[float], margin: float) -> Equivalence:
    p_value = max(_judge_pairs(base, other, margin), _judge_pairs(other, base, margin))
    ratio = estimate_median_of_series([b / a for a, b in zip(base, other, strict=True)], level=1 - 2 * RISK)
    return Equivalence(margin, p_value, ratio.low, ratio.high)


def judge_equivalence(base: Sequence[float], other: Sequence[float], margin: float = MARGIN) -> Equivalence:
    """Return whether the medians of positive values differ by no more than a fraction ``margin`` of each other.

    Two one-sided tests (Schuirmann, A comparison of the two one-sided tests procedure and the power approach, Journal
    of Pharmacokinetics and Biopharmaceutics 15, 1987), here by ranks: that ``other`` is less than 1 + margin times, and
    more than 1 / (1 + margin) times ``base``; the larger p value counts.
    """
    inflation = _inflate(base, other)
    p_value = max(
        judge_below([value * (1 + margin) for value in base], other, inflation),
        judge_below([value * (1 + margin) for value in other], base, inflation),
    )
    ratio = estimate_median_ratio(other, base, level=1 - 2 * RISK)
    return Equivalence(margin, p_value, ratio.low, ratio.high)


def adjust_holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return the p values adjusted for their number, in the order given.

    S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979: those
    that are at most the risk may all be rejected, and the chance that any is rejected wrongly is no larger than it.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return tuple(adjusted)


def judge_family(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Return comparisons that are made side by side, with p values adjusted and verdicts that hold for all at once."""
    differing = adjust_holm([one.p_value for one in comparisons])
    beyond = adjust_holm([one.equivalence.p_value if one.equivalence else 1.0 for one in comparisons])
    return tuple(
        _adjust(one, p_value, p_beyond, len(comparisons))
        for one, p_value, p_beyond in zip(comparisons, differing, beyond, strict=True)
    )


def _adjust(one: Comparison, p_value: float, p_beyond: float, family: int) -> Comparison:
    """Return a comparison as one of a family, with its verdict."""
    judged = _judge(
        replace(
            one,
            p_value=p_value,
            equivalence=replace(one.equivalence, p_value=p_beyond) if one.equivalence else None,
            smallest=_find_smallest_of_family(one, family),
            family=family,
        )
    )
    if judged.verdict != "cannot tell" or one.verdict == "cannot tell":
        return judged
    return replace(judged, why=f"not sure enough for {family} comparisons at once")


def _find_smallest_of_family(one: Comparison, family: int) -> float | None:
    """Return the smallest difference that would have been seen though it is one of ``family`` comparisons; None where
    so few trials could not have shown any."""
    least = 2 / (2**one.n_base if one.paired else math.comb(one.n_base + one.n_other, one.n_base))
    if one.smallest is None or least * family > RISK:
        return None
    return math.expm1(min(_LARGEST, math.log1p(one.smallest) * _reach(family) / _reach(one.family)))


def judge_exactly(one: Comparison) -> Comparison:
    """Return a comparison of figures that chance has no part in: any difference is one, however few trials."""
    estimate, same = (one.ratio, 1.0) if one.ratio else (one.difference, 0.0)
    verdict: Verdict = "more" if estimate.value > same else "less" if estimate.value < same else "equivalent"
    return replace(
        one, verdict=verdict, p_value=float(verdict == "equivalent"), equivalence=None, smallest=None, why=""
    )


def _judge(one: Comparison) -> Comparison:
    """Return the comparison with its verdict."""
    if min(one.n_base, one.n_other) < FEWEST:
        return replace(one, verdict="cannot tell", why=f"fewer than {FEWEST} trials")
    if one.equivalence and one.equivalence.p_value <= RISK and one.equivalence.within:
        return replace(one, verdict="equivalent", why="")
    estimate, same = (one.ratio, 1.0) if one.ratio else (one.difference, 0.0)
    if one.p_value <= RISK and estimate.low > same:
        return replace(one, verdict="more", why="")
    if one.p_value <= RISK and estimate.high < same:
        return replace(one, verdict="less", why="")
    return replace(one, verdict="cannot tell", why=one.why or "the trials vary too much")


def _smallest(base: Sequence[float], other: Sequence[float]) -> float | None:
    """Return the smallest relative difference that trials that vary as these do would have shown."""
    if min(len(base), len(other)) < FEWEST:
        return None
    shift = hodges_lehmann([math.log(value) for value in base], [math.log(value) for value in other])
    return _find_smallest(max(shift.high - shift.low, _log_width(estimate_median_ratio(other, base))) / 2)


def _log_width(ratio: Estimate) -> float:
    return math.log(ratio.high) - math.log(ratio.low) if ratio.low > 0 else math.inf


def _find_smallest(half_width: float) -> float | None:
    """Return the relative difference that is seen with ``POWER`` where half an interval of its logarithm is so wide."""
    reach = half_width * _reach(1)
    return math.expm1(reach) if reach < _LARGEST else None


def _reach(family: int) -> float:
    """Return how far off a difference must be to be seen with ``POWER`` among so many, in halves of an interval: of
    standard errors it is z(1 - RISK / 2 / family) + z(POWER), and half the interval z(1 - RISK / 2)."""
    normal = NormalDist()
    return (normal.inv_cdf(1 - RISK / 2 / family) + normal.inv_cdf(POWER)) / normal.inv_cdf(1 - RISK / 2)
