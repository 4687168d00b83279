"""How much a figure changed between two sides, and what a gate makes of it.

A side is one run or several, and the run is the unit: trials of one run share its boot, its host's mood and its images,
so pooling those of several runs would take their number for independent evidence (Kalibera and Jones, Rigorous
Benchmarking in Reasonable Time, ISMM 2013). With several runs on a side, runs vary from one to the next, and the
interval has that; with one on each side it has only what varies within a run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, median, variance
from typing import Literal

from msgspec import Struct

from testbed.runs.figures import Better
from testbed.statistics import FEWEST, LEVEL, estimate_median, estimate_median_ratio
from testbed.statistics.ranks import judge_below

Result = Literal["ok", "regression", "cannot tell"]
# The exit codes of a gate, as the command line documents them.
EXIT_CODES: dict[Result, int] = {"ok": 0, "regression": 3, "cannot tell": 4}
# The risk that a gate is red by chance alone, over all of its figures.
ALPHA = 1 - LEVEL
RESULTS: tuple[Result, ...] = ("regression", "cannot tell", "ok")

Runs = Sequence[Sequence[float]]


class Change(Struct, frozen=True):
    """The relative change of a figure's median, 0.1 for a tenth more, with its 95 % interval.

    ``low`` and ``high`` are None where there are too few values for an interval. ``covers_runs``: the interval has what
    varies from run to run.
    """

    value: float
    low: float | None = None
    high: float | None = None
    covers_runs: bool = False

    def harm(self, better: Better) -> Change:
        """Return the same with more meaning worse."""
        if better == "lower":
            return self
        low, high = (None if end is None else 0.0 - end for end in (self.high, self.low))
        return Change(0.0 - self.value, low, high, self.covers_runs)


class Judgement(Struct, frozen=True):
    """What a gate says of one figure: ``threshold`` is what was allowed and ``smallest`` the smallest change for the
    worse that would have been a regression, both relative; None where nothing could have been seen."""

    result: Result
    reason: str
    threshold: float | None = None
    smallest: float | None = None


def find_typical(values: Sequence[float]) -> float:
    """Return what stands for a run: the median of its trials."""
    return median(values)


def estimate_change(before: Runs, after: Runs) -> Change | None:
    """Return the relative change from the runs of one side to those of the other, with its 95 % interval; None for what
    has no ratio.

    Raises ValueError without a value on each side.
    """
    if not all((before, after, *before, *after)):
        raise ValueError("a change needs a value on each side")
    old, new = [find_typical(run) for run in before], [find_typical(run) for run in after]
    if min(old) <= 0 or min(new) < 0:
        unchanged = {*old, *new} == {0.0}
        return Change(0.0, 0.0, 0.0, covers_runs=_are_several(before, after)) if unchanged else None
    if min(new) == 0:  # such as no copy of the application at all
        return Change(median(new) / median(old) - 1)
    if _are_several(before, after):
        difference, half, _ = _compare_logs(old, new)
        low, high = (_relative(difference + end) for end in (-half, half))
        return Change(_relative(difference), low, high, covers_runs=True)
    if min(*before[0], *after[0]) > 0 and min(len(before[0]), len(after[0])) >= FEWEST:
        ratio = estimate_median_ratio(after[0], before[0])
        return Change(ratio.value - 1, ratio.low - 1, ratio.high - 1)
    return Change(new[0] / old[0] - 1)


def find_p_of_harm(before: Runs, after: Runs, better: Better, threshold: float) -> float:
    """Return the p value of the hypothesis that the figure is worse by no more than ``threshold``, relative.

    Of one run on each side by Mann and Whitney's test of the trials, after the baseline's were made worse by as much;
    of several by Student's t of the logarithms of the runs' medians.
    """
    factor = 1 + threshold if better == "lower" else 1 - threshold
    if not _are_several(before, after):
        shifted = [value * factor for value in before[0]]
        return judge_below(after[0], shifted) if better == "lower" else judge_below(shifted, after[0])
    from scipy.special import stdtr

    old, new = [find_typical(run) for run in before], [find_typical(run) for run in after]
    if factor <= 0 or min(*old, *new) <= 0:
        return 1.0
    difference, _, error = _compare_logs(old, new)
    beyond = (difference - math.log(factor)) * (1 if better == "lower" else -1)
    if error == 0:
        return 0.0 if beyond > 0 else 1.0
    return float(stdtr(len(old) + len(new) - 2, -beyond / error))


def _are_several(before: Runs, after: Runs) -> bool:
    return len(before) > 1 or len(after) > 1


def _compare_logs(old: Sequence[float], new: Sequence[float]) -> tuple[float, float, float]:
    """Return the difference of the mean logarithms of the runs' medians, half its 95 % interval and its standard error,
    by Student's t with one spread for both sides.

    With one run on a side this is the interval of a prediction: where a further run of the other side would lie
    (Hahn and Meeker, Statistical Intervals, 1991, section 4.7).
    """
    from scipy.special import stdtrit

    logs = [[math.log(value) for value in side] for side in (old, new)]
    freedom = len(old) + len(new) - 2
    squares = sum(variance(side) * (len(side) - 1) for side in logs if len(side) > 1)
    error = math.sqrt(squares / freedom * (1 / len(old) + 1 / len(new)))
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    return fmean(logs[1]) - fmean(logs[0]), half, error


def _relative(logarithm: float) -> float:
    return math.expm1(min(logarithm, 700.0))  # beyond, no float


def estimate_own_noise(runs: Runs) -> float | None:
    """Return by how much a run's own median is uncertain, relative to it, of several runs of a side the median; None
    where a run has too few trials for an interval, or none that is a ratio.

    It is the width of its interval, or how far apart the medians of its consecutive parts are: an interval takes trials
    for independent, and a host that was slow for a while makes neighbours alike.
    """
    noises = []
    for values in runs:
        estimate = estimate_median(values)
        if not estimate.is_interval or estimate.value <= 0:
            return None  # a run without it would be the noisiest
        medians = [median(part) for part in _divide(values)]
        noises.append(max(estimate.high - estimate.low, max(medians) - min(medians)) / estimate.value)
    return median(noises) if noises else None


def _divide(values: Sequence[float]) -> list[Sequence[float]]:
    """Return a run's trials in four consecutive parts, or in two where these would have fewer than three."""
    parts = 4 if len(values) >= 12 else 2
    ends = [len(values) * number // parts for number in range(parts + 1)]
    return [values[begin:end] for begin, end in pairwise(ends)]


def judge(change: Change | None, better: Better, limit: float, noise: float | None, p_of_harm: float) -> Judgement:
    """Judge a change by the larger of the user's limit and the noise, both relative.

    A regression is one whose whole interval is beyond that, and whose ``p_of_harm``, adjusted for the number of figures
    that are judged, is below ALPHA. It is ok when the whole interval is within the limit and, where the interval has
    not what varies from run to run, so is the noise. Otherwise it cannot be told: a change of the limit's size could
    hide.
    """
    if change is None:
        return Judgement("cannot tell", "it is zero or less in the baseline, so there is no ratio")
    harm = change.harm(better)
    if harm.low is None or harm.high is None:
        return Judgement("cannot tell", f"one run on each side, of fewer than {FEWEST} trials: there is no interval")
    threshold = max(limit, noise or 0.0)
    smallest = threshold + (harm.value - harm.low)
    if harm.low > threshold and p_of_harm < ALPHA:
        return Judgement("regression", f"worse by at least {harm.low:.1%}", threshold, smallest)
    if threshold > limit and not change.covers_runs:
        return Judgement("cannot tell", f"the noise, {threshold:.1%}, is more than the limit", threshold, smallest)
    if harm.high <= limit:
        return Judgement("ok", "within the limit", threshold, smallest)
    return Judgement("cannot tell", f"up to {harm.high:.1%} worse is not ruled out", threshold, smallest)


def judge_exactly(before: Runs, after: Runs, better: Better, limit: float = 0.0) -> Judgement:
    """Judge figures of the reference machine, where the same inputs give the same figures: any difference is one.

    What differs for the better alone is no regression. A difference that leaves the median as it was counts as worse.
    """
    if list(map(tuple, before)) == list(map(tuple, after)):
        return Judgement("ok", "identical", limit, limit)
    old, new = (median(map(find_typical, side)) for side in (before, after))
    if old == new:
        return Judgement("regression", "the median is the same, and trials differ", limit, limit)
    harm = (new - old) * (1 if better == "lower" else -1)
    if harm < 0:
        return Judgement("ok", "better, exactly", limit, limit)
    if old > 0 and harm / old <= limit:
        return Judgement("ok", f"worse by {harm / old:.3%}, within the limit", limit, limit)
    return Judgement("regression", "worse, exactly", limit, limit)
