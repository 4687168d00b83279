"""Tells how the platforms of a run compare with its baseline, and what its trials did in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import to_builtins

from reports import conditions
from reports.quantities import LOAD, RULERS, START, Quantity
from testbed.analysis import Run
from testbed.comparisons import Headline, PlatformComparison, Series, compare_platforms, examine_series
from testbed.repetitions import find_repetitions
from testbed.statistics import FEWEST, FEWEST_TO_SHOW, Comparison

_RATIO = Quantity("ratio of medians", "")
_TITLES = {
    ("start", "ready"): START["ready"].title,
    ("density", "further_bytes"): f"each further copy, {RULERS['memory_cgroup'].title}",
    ("density", "applications"): "copies within the SLO",
    ("consolidation", "servers"): "servers within the SLO",
    ("consolidation", "alone_cpu"): "processor time of one server alone",
}


def describe(run: Run) -> list[str]:
    """Return a sentence for each platform and baseline: the verdict and the ratio of every figure that both have."""
    labels = {one.name: one.label for one in run.platforms}
    by_pair: dict[tuple[str, str], list[PlatformComparison]] = {}
    for one in compare_platforms(run):
        by_pair.setdefault((one.platform, one.baseline), []).append(one)
    return [
        f"{labels[platform]} against {labels[baseline]}: {'; '.join(map(_describe_figure, found))}"
        f"{conditions.in_instruction_time(run)}{_describe_family(found)}."
        for (platform, baseline), found in by_pair.items()
    ]


def _describe_family(found: Sequence[PlatformComparison]) -> str:
    family = found[0].comparison.family
    return f" ({family} comparisons, judged at once)" if family > 1 else ""


def _describe_figure(one: PlatformComparison) -> str:
    return f"{title_of(one.headline)} {describe_verdict(one.comparison)}"


def describe_verdict(compared: Comparison) -> str:
    """Return a verdict in words, with the ratio that it rests on."""
    ratio = compared.ratio
    shown = f"{_RATIO.show(ratio.value)} times" if ratio else ""
    if ratio and (spread := _RATIO.qualify(ratio)):
        shown += f", {'95 % interval ' if ratio.is_interval else ''}{spread}"
    if compared.paired:
        shown += ", within blocks"
    if compared.verdict == "equivalent":
        within = f" within {compared.equivalence.margin:.0%}" if compared.equivalence else ""
        return f"the same{within} ({shown})"
    if compared.verdict != "cannot tell":
        return f"{compared.verdict} ({shown})"
    seen = f"; a difference of {compared.smallest:.0%} would have been seen" if compared.smallest is not None else ""
    return f"cannot tell ({', '.join(filter(None, (shown, compared.why)))}{seen})"


def title_of(headline: Headline) -> str:
    """Return what a headline figure is called."""
    if headline.measure == "work":
        return headline.metric.replace("_", " ")
    known = _TITLES.get((headline.measure, headline.metric)) or LOAD[headline.metric].title
    if headline.mix:
        return f"{known} ({headline.mix} each)"
    return known if headline.rate_per_s is None else f"{known} at {headline.rate_per_s:g}/s"


def list_notes(run: Run) -> list[str]:
    """Return what a reader must know of the order of the run's trials, a sentence each, and which of its intervals take
    them as independent."""
    labels = {one.name: one.label for one in run.platforms}
    notes = [
        f"{title_of(series.headline)}, {labels[series.platform]}: {', and '.join(told)}."
        for series in examine_series(run)
        if (told := _list_told(series))
    ]
    return [*notes, *_note_assumed(examine_series(run))]


def _note_assumed(examined: Sequence[Series]) -> list[str]:
    """Say which figures have an interval of so few trials that these cannot show whether they are independent."""
    few = [series for series in examined if FEWEST <= _count_trials(series) < FEWEST_TO_SHOW]
    if not few:
        return []
    titles = ", ".join(dict.fromkeys(title_of(series.headline) for series in few))
    counts = sorted(set(map(_count_trials, few)))
    n = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    return [f"Intervals of {titles} assume independent trials: n = {n} cannot show otherwise."]


def _list_told(series: Series) -> list[str]:
    told = []
    if series.warmup:
        told.append(
            f"the first {series.warmup} trials differ from the later ones as a warm-up would, and count all the same"
            if series.warmup > 1
            else "the first trial differs from the later ones as a warm-up would, and counts all the same"
        )
    if series.drifts:
        or_wandered = ", or wandered, which that test cannot tell from a drift" if series.is_related else ""
        told.append(
            f"it drifted by {series.drift.relative:+.1%} over the run (Mann-Kendall p {series.drift.p_value:.2g})"
            f"{or_wandered}"
        )
    if series.is_related:
        told.append(
            f"neighbouring trials resemble each other (lag-1 autocorrelation {series.related.lag_1:.2f}, by chance at"
            f" most {series.related.bound:.2f}): {_describe_effect(series)}"
        )
    return told


def _describe_effect(series: Series) -> str:
    """Say what related trials do to the interval."""
    n = _count_trials(series)
    if series.effective is None:
        return f"{n} trials are too few for an interval that allows for it"
    return f"in its interval its {n} trials count as {series.effective:.0f} independent ones"


def _count_trials(series: Series) -> int:
    """Return how many trials the figure's interval has: those that look like a warm-up count, too."""
    return series.warmup + series.related.n


def as_json(run: Run) -> dict[str, Any]:
    """Return the same as data: every comparison, every series with what it did, and where it would be worth to repeat
    more."""
    return {
        "against_baseline": [to_builtins(one) for one in compare_platforms(run)],
        "over_the_run": [to_builtins(one) for one in examine_series(run)],
        "where_to_repeat": {
            one.name: to_builtins(found) for one in run.platforms if (found := find_repetitions(run, one.name))
        },
    }
