"""Trends in words, as lines and as data: which run changed which figure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct, to_builtins

from reports.runs import wording
from testbed.runs.trend import FEWEST_RUNS, Point, Series, Shift, Trend, Trends

# Raised when a reader of the version before would read the document wrong.
SCHEMA = "testbed-trend/1"


class Found(Struct, frozen=True):
    """A change of a figure: the run that has it first, and the one before; ``harm`` is relative, 0 without a ratio."""

    series: Series
    shift: Shift
    before: Point
    after: Point
    harm: float


def list_changes(trend: Trend) -> list[Found]:
    """Return all changes of a trend, the newest run's first, of one run the most harm first."""
    changes = [_find(trend, series, shift) for series in trend.series for shift in series.shifts]
    place = {point.run: number for number, point in enumerate(trend.points)}
    return sorted(changes, key=lambda one: (-place[one.after.run], -one.harm))


def _find(trend: Trend, series: Series, shift: Shift) -> Found:
    at = series.runs[shift.index]
    harm = (shift.change or 0.0) * (1 if series.figure.direction.better == "lower" else -1)
    return Found(series, shift, trend.points[series.runs[shift.index - 1]], trend.points[at], harm)


def describe_trends(trends: Trends) -> Iterator[str]:
    """Yield the lines of a terminal: for each trend its runs, then each run that changed something, with what it
    changed."""
    for trend in trends.trends:
        clock = ", in instruction time: every difference is a change" if trend.exact else ""
        first, last = trend.points[0].run, trend.points[-1].run
        span = first if len(trend.points) == 1 else f"{first} to {last}"
        yield f"{trend.scenario}: {len(trend.points)} run{'s' * (len(trend.points) != 1)}, {span}{clock}"
        if trend.too_few:
            yield f"  too few to tell a change from chance: that takes {FEWEST_RUNS} runs of one experiment on one host"
            continue
        changes = list_changes(trend)
        if not changes:
            yield f"  no change in any of {len(trend.series)} figures"
        for run in dict.fromkeys(one.after.run for one in changes):
            of = [one for one in changes if one.after.run == run]
            commits = " → ".join(one.commit or "?" for one in (of[0].before, of[0].after))
            yield f"  since {run} (commit {commits}):"
            for one in of:
                yield f"    {_describe(one)}"
    for reason in trends.left_out:
        yield f"left out: {reason}"


def _describe(one: Found) -> str:
    quantity = wording.describe_figure(one.series.figure, max(abs(one.shift.before), abs(one.shift.after)))
    change = f"{wording.show_percent(one.shift.change)}, " if one.shift.change is not None else ""
    sense = "worse" if one.harm > 0 else "better" if one.harm < 0 else "other"
    return (
        f"{sense}: {one.series.figure.platform}, {quantity.title}: {change}"
        f"{quantity.show(one.shift.before)} → {quantity.show(one.shift.after)}"
    )


def as_json(trends: Trends) -> dict[str, Any]:
    """Return trends as data, ready for ``json.dumps``, values in base units."""
    return {
        "schema": SCHEMA,
        "trends": [
            {
                "scenario": trend.scenario,
                "exact": trend.exact,
                "too_few": trend.too_few,
                "runs": [to_builtins(point) for point in trend.points],
                "figures": [
                    {"name": one.figure.name, "unit": one.figure.direction.unit, "runs": one.runs, "values": one.values}
                    for one in trend.series
                ],
                "changes": [
                    {
                        "name": one.series.figure.name,
                        "run": one.after.run,
                        "commit": one.after.commit,
                        "before": one.shift.before,
                        "after": one.shift.after,
                        "change": one.shift.change,
                        "harm": one.harm,
                    }
                    for one in list_changes(trend)
                ],
            }
            for trend in trends.trends
        ],
        "left_out": list(trends.left_out),
    }
