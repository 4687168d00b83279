"""Puts a comparison into words: what a figure is called, how a change and a verdict read."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from reports import consolidation, work
from reports.quantities import COUNTS, LOAD, RULERS, START, START_EXTRAS, Quantity
from testbed.runs.compare import Comparison, Row
from testbed.runs.figures import WORK, Figure
from testbed.runs.verdict import Change, Judgement
from testbed.statistics import Estimate

_PER_REQUEST = "_per_request"
_COPIES = {"_first": "first copy", "_further": "each further copy"}
RESULT = {"ok": "ok", "regression": "worse", "cannot tell": "cannot tell"}
HEADLINES = {
    "ok": "No figure got worse by more than its limit.",
    "regression": "{} of {} figures got worse by more than was allowed.",
    "cannot tell": "It cannot be told whether any figure got worse: {} of {} are not known well enough.",
}


class Line(Struct, frozen=True):
    """A row of a comparison as texts; ``result`` is a gate's, "" where it does not judge the figure."""

    platform: str
    title: str
    before: str
    after: str
    change: str
    interval: str
    verdict: str
    result: str


def describe_figure(figure: Figure, largest: float = 1.0) -> Quantity:
    """Return a figure's title, unit and scale; ``largest`` of its values chooses the scale of an application's own."""
    if figure.measure == "start":
        known = {**START_EXTRAS, **START, **COUNTS}
        return known.get(figure.metric) or Quantity(figure.metric.replace("_", " "), _unit(figure))
    if figure.measure == WORK:
        return work.describe_figure(figure.metric, figure.direction.unit, largest)
    if figure.measure == "density":
        for ending, which in _COPIES.items():
            if figure.metric.endswith(ending):
                ruler = RULERS[figure.metric.removesuffix(ending)]
                return Quantity(f"{which}, {ruler.title}", ruler.unit, ruler.scale)
        return Quantity("copies within the SLO", "", most_decimals=0)
    if figure.measure == "consolidation":
        quantity = {**consolidation.FIGURES, **consolidation.IDLE}[figure.metric]
        return replace(quantity, title=f"{quantity.title} ({figure.mix[:60]})")
    known = {**LOAD, **{f"{name}{_PER_REQUEST}": quantity for name, quantity in COUNTS.items()}}
    quantity = known.get(figure.metric) or Quantity(figure.metric.replace("_", " "), _unit(figure))
    per = " per request" if figure.metric.removesuffix(_PER_REQUEST) in COUNTS else ""
    return Quantity(f"{quantity.title}{per} at {figure.rate_per_s:g}/s", quantity.unit, quantity.scale)


def _unit(figure: Figure) -> str:
    return {"1": "", "bytes": "MiB"}.get(figure.direction.unit, figure.direction.unit)


def show_side(quantity: Quantity, estimates: Sequence[Estimate]) -> str:
    """Return one side of a row: a run's median with its interval, or the range of the medians of several runs."""
    if len(estimates) == 1:
        (estimate,) = estimates
        spread = quantity.qualify(estimate)
        return quantity.show(estimate.value) + (f" ({spread})" if spread else "")
    values = sorted(one.value for one in estimates)
    middle = (values[len(values) // 2] + values[(len(values) - 1) // 2]) / 2
    return f"{quantity.show(middle)} ({len(values)} runs, {quantity.span(values[0], values[-1], middle)})"


def show_percent(value: float) -> str:
    """Return a relative change as a signed percentage."""
    percent = 100 * value
    if abs(percent) >= 1e6:
        return "more than ±10⁶ %"
    digits = 0 if abs(percent) >= 100 else 1 if abs(percent) >= 1 else 2
    text = f"{percent:+.{digits}f}"
    return ("0" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")) + " %"


def show_interval(change: Change) -> str:
    """Return the interval of a change; "" where it has none."""
    if change.low is None or change.high is None:
        return ""
    return f"{show_percent(change.low).removesuffix(' %')} to {show_percent(change.high)}"


def show_judgement(judgement: Judgement | None) -> str:
    """Return a gate's word on a figure, with the smallest change that could have been seen where it cannot tell."""
    if judgement is None:
        return ""
    if judgement.result != "cannot tell":
        return RESULT[judgement.result]
    seen = f"; from {show_percent(judgement.smallest)} on it would be seen" if judgement.smallest is not None else ""
    return f"cannot tell: {judgement.reason}{seen}"


def make_lines(comparison: Comparison) -> list[Line]:
    """Return the rows of a comparison as texts, the most harm first."""
    return [_make_line(row) for row in comparison.rows]


def _make_line(row: Row) -> Line:
    quantity = describe_figure(row.figure, max(abs(one.value) for one in (*row.before, *row.after)))
    return Line(
        row.figure.platform,
        quantity.title,
        show_side(quantity, row.before),
        show_side(quantity, row.after),
        show_percent(row.change.value) if row.change else "no ratio",
        show_interval(row.change) if row.change else "",
        show_judgement(row.judgement),
        row.judgement.result if row.judgement else "",
    )


def describe_result(comparison: Comparison) -> str:
    """Return a gate's result in a sentence, with the smallest change that could have been seen."""
    judgements = comparison.judgements
    if not judgements:
        return "It cannot be told whether any figure got worse: none of those that are judged is in both runs."
    count = sum(one.result == comparison.result for one in judgements)
    sentence = HEADLINES[comparison.result].format(count, len(judgements))
    smallest = [one.smallest for one in judgements if one.smallest is not None and one.result == "cannot tell"]
    if comparison.result != "cannot tell":
        return sentence
    if not smallest:
        return f"{sentence} No change, however large, could have been seen in them."
    return f"{sentence} Of these, changes could have been seen from {show_percent(max(smallest))} on."


def describe_side(runs: Sequence[str], commits: Sequence[str]) -> str:
    """Return which runs a side is made of, and which commits measured them."""
    shown = ", ".join(runs) if len(runs) <= 3 else f"{len(runs)} runs, {runs[0]} to {runs[-1]}"
    return f"{shown} (commit {', '.join(commits[:3])})" if commits else shown


def list_failures(comparison: Comparison) -> list[tuple[str, str]]:
    """Return what is to be said of failed trials, and of figures that one side lacks: a name and a sentence."""
    failed = [
        (f"{one.platform}, {one.measure}", f"{RESULT[one.judgement.result]}: {one.judgement.reason}")
        for one in comparison.failures
    ]
    lost = [
        (f"{figure.platform}, {describe_figure(figure).title}", f"cannot tell: {why}")
        for figure, why in comparison.missing
    ]
    return [*failed, *lost]
