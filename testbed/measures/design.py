"""How many blocks a run measures: at least so many that a median has an interval, then more until it is narrow.

To stop when an interval has become narrow makes it too narrow: a run ends where its values happen to lie close together
(Y. S. Chow and H. Robbins, On the asymptotic theory of fixed-width sequential confidence intervals, Annals of
Mathematical Statistics 36(2), 1965: right in the limit only). With lognormal values of 10 % spread, 92 % of such
intervals covered the median. So a run is judged without its last block: one more follows the decision, which by
simulation makes 95 % of it again (tests/testbed/measures/test_design.py). The interval is the one that is reported:
where trials resemble their neighbours it is wider, and the run longer. Fewer than ``FEWEST_TO_SHOW`` trials cannot show
whether they do; theirs must be narrower by as much as correlation could widen it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from runtime.errors import UsageError
from testbed.headlines import HEADLINES, find_headline
from testbed.levels import Level, find_level
from testbed.results import Trial
from testbed.statistics import FEWEST, FEWEST_TO_SHOW, estimate_median_of_series

# The relative half-width of a median's interval that is narrow enough, unless --until says otherwise.
UNTIL = 0.05
# So many times as narrow must an interval be that takes its trials as independent: about as much wider as it
# had to be if each had two thirds of its deviation from the one before.
_UNSHOWN = 2.0
# No measure gets more blocks than these to become so; a coefficient of variation of 12 % takes about 36 for 5 %.
MOST_BLOCKS = 40
# After so many seconds no block begins beyond the least number, unless --budget says otherwise.
MORE_FOR_S = 30 * 60.0
# In the short form (quick settings) a block of a measure that takes many seconds comes to so many of the others.
STARTS_PER_BLOCK = 3
_LONG = ("density", "utilisation", "neighbours", "consolidation")
WARMUP_BLOCKS = 1
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
_LEAST_UNTIL, _MOST_UNTIL = 0.001, 0.5
_LONGEST_S = 7 * 86_400.0


class Design(Struct, frozen=True):
    """How many blocks of each measure: ``least`` and ``most`` after ``warmups`` that do not count, and between these
    until every median's relative half-width is ``until`` (0: not looked at).

    ``budget_s``: no block begins that would not end within these seconds. ``more_for_s``: none beyond the least does.
    """

    least: Mapping[str, int]
    most: Mapping[str, int]
    until: float = 0.0
    warmups: int = 0
    budget_s: float | None = None
    more_for_s: float | None = None

    @property
    def is_adaptive(self) -> bool:
        """Whether what is measured decides how much is."""
        return self.until > 0


class Width(Struct, frozen=True):
    """The relative half-width of a platform's interval (at one level); None without one, ``n`` trials behind it."""

    platform: str
    half: float | None
    n: int
    level: Level | None = None


class Asked(Struct, frozen=True):
    """What was asked for of a run's length; None where nothing was."""

    quick: bool = False
    trials: int | None = None
    until: float | None = None
    budget_s: float | None = None


def parse_until(text: str) -> float:
    """Return the fraction that ``--until`` names: ``5%``. Raises UsageError for what is none."""
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%", text.strip())
    fraction = float(match[1]) / 100 if match else math.nan
    if not _LEAST_UNTIL <= fraction <= _MOST_UNTIL:
        raise UsageError(
            f"--until {text}: not half the width of an interval",
            f"a part of the median from {_LEAST_UNTIL:.1%} to {_MOST_UNTIL:.0%}, for example 5%",
        )
    return fraction


def parse_budget(text: str) -> float:
    """Return the seconds that ``--budget`` names: ``90s``, ``30m``, ``2h``. Raises UsageError for what is none."""
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*([smh])", text.strip())
    seconds = float(match[1]) * _UNITS_S[match[2]] if match else 0.0
    if not 0 < seconds <= _LONGEST_S:
        raise UsageError(
            f"--budget {text}: not a time",
            "a number with s, m or h, at most a week, as in 90s, 30m, 2h",
        )
    return seconds


def choose_design(measures: Sequence[str], trials: int, asked: Asked) -> Design:
    """Return the design that was asked for; ``trials`` is the scenario's number of starts.

    Raises UsageError for a number of trials below 1, and for a width where the number of trials is fixed.
    """
    if asked.trials is not None and asked.trials < 1:
        raise UsageError(f"--trials {asked.trials}: a number of trials is at least 1")
    if asked.until is not None and (asked.quick or asked.trials is not None):
        fixed = "--quick" if asked.quick else f"--trials {asked.trials}"
        raise UsageError(f"--until {asked.until:.3%}: with {fixed} the number of trials is fixed", f"leave {fixed} out")
    if asked.quick:
        starts = trials if asked.trials is None else asked.trials
        counts = {one: max(1, starts // STARTS_PER_BLOCK) if one in _LONG else starts for one in measures}
        return Design(counts, counts, budget_s=asked.budget_s)
    if asked.trials is not None:
        counts = dict.fromkeys(measures, asked.trials)
        return Design(counts, counts, budget_s=asked.budget_s)
    least = {one: max(FEWEST, trials) if one == "start" else FEWEST for one in measures}
    # What no figure is judged by has nothing to become narrow.
    most = {one: max(MOST_BLOCKS, count) if one in HEADLINES else count for one, count in least.items()}
    more_for_s = MORE_FOR_S if asked.budget_s is None else None
    until = UNTIL if asked.until is None else asked.until
    return Design(least, most, until, WARMUP_BLOCKS, asked.budget_s, more_for_s)


def find_widths(measure: str, record: Iterable[Trial]) -> tuple[Width, ...]:
    """Return the width of each platform's interval in a measure, at each of its levels."""
    groups: dict[tuple[str, Level | None], list[Trial]] = {}
    for trial in record:
        if trial.counted and trial.measure == measure:
            groups.setdefault((trial.platform, find_level(trial)), []).append(trial)
    return tuple(Width(platform, _half(measure, of), len(of), level) for (platform, level), of in groups.items())


def _half(measure: str, trials: Sequence[Trial]) -> float | None:
    """Return the relative half-width of the median of the measure's headline; None when there is no interval."""
    metric = find_headline(measure, trials)
    values = [value for trial in trials if (value := trial.value(metric)) is not None]
    estimate = estimate_median_of_series(values) if values else None
    if estimate is None or not estimate.is_interval:
        return None
    half = (estimate.high - estimate.low) / 2
    return half / abs(estimate.value) if estimate.value else math.inf if half else 0.0


def find_widest(measure: str, record: Iterable[Trial]) -> float | None:
    """Return the widest of the platforms' half-widths; None when there is none, or one of them has no interval."""
    halves = [width.half for width in find_widths(measure, record)]
    known = [half for half in halves if half is not None]
    return max(known) if known and len(known) == len(halves) else None


def _is_narrow(width: Width, until: float) -> bool:
    return width.half is not None and width.half <= (until if width.n >= FEWEST_TO_SHOW else until / _UNSHOWN)


def judge(design: Design, measure: str, blocks: int, record: Sequence[Trial]) -> str:
    """Return why a measure needs no further block after so many that count, in words; empty when it does.

    Its intervals are narrow enough when they were so before the last block, too.
    """
    if blocks < design.least[measure]:
        return ""
    if not design.is_adaptive:
        return f"{blocks} block{'' if blocks == 1 else 's'}, as asked for"
    if not any(trial.counted and trial.measure == measure for trial in record):
        return f"no trial of it counts after {blocks} blocks"
    if not find_headline(measure, record):
        return f"{blocks} blocks: it has no figure to be judged by"
    widest = find_widest(measure, record)
    found = "without an interval on some platform" if widest is None else f"±{widest:.1%}"
    last = max(trial.block for trial in record if trial.measure == measure)
    before = find_widths(measure, [trial for trial in record if trial.block != last])
    if before and all(_is_narrow(width, design.until) for width in before):
        return f"{found} after {blocks} blocks"
    return f"the most, {blocks} blocks: {found}" if blocks >= design.most[measure] else ""


def predict_blocks(design: Design, measure: str, blocks: int, record: Sequence[Trial]) -> int:
    """Return how many blocks that count a measure will have in all, as far as can be told: a median's interval narrows
    with the root of their number."""
    least, most = design.least[measure], design.most[measure]
    if blocks < least or not design.is_adaptive:
        return least
    if judge(design, measure, blocks, record):
        return blocks
    widest = find_widest(measure, record)
    if widest is None or not math.isfinite(widest):
        return most
    enough = blocks * (widest / design.until) ** 2
    if blocks < FEWEST_TO_SHOW:
        enough = max(enough, min(enough * _UNSHOWN**2, FEWEST_TO_SHOW))
    return min(most, max(blocks, math.ceil(enough)) + 1)
