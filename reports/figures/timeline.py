"""When each trial ran, on which platform, and how it ended; what failed leads to its log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup
from msgspec import Struct

from reports.figures.marks import Picture, assign_looks, bar, element, join, percent
from reports.figures.matrix import Cell, Column, Matrix, Row, draw_matrix
from reports.figures.scales import Scale
from reports.thinning import pick_evenly
from testbed.analysis import Run
from testbed.results import Trial

_STRIP_PX = 24
# Narrower than this part of the run, neighbours are drawn as one.
_FINEST = 1 / 600
_MOST_FAILURES = 150


class Span(Struct, frozen=True):
    """A trial's time in the run, in minutes since its first trial began (or by number, where no times are known)."""

    begin: float
    end: float
    trial: Trial


def draw_timeline(run: Run, logs: Mapping[int, Sequence[str]]) -> list[Picture]:
    """Draw a row a platform; ``logs`` are links to each trial's consoles. None without a trial."""
    spans, timed = place_trials(run.trials)
    if not spans:
        return []
    end = max(span.end for span in spans)
    scale = Scale("linear", min(0.0, min(span.begin for span in spans)), max(end, 1e-6))
    looks = assign_looks(run)
    measures = list(dict.fromkeys(trial.measure for trial in run.trials))
    by_platform: dict[str, list[Span]] = {}
    for span in spans:
        by_platform.setdefault(span.trial.platform, []).append(span)
    rows, cells, described = list[Row](), {}, []
    for one in run.platforms:
        if not (own := by_platform.get(one.name)):
            continue
        bad = [span for span in own if span.trial.outcome != "ok"]
        shapes = [*_blocks(own, scale, measures, looks[one.name].hue), *_failures(bad, scale, logs)]
        cells[len(rows), 0] = Cell(join(*shapes), f"{len(own) - len(bad)} ok", f"{len(bad)} not ok" if bad else "")
        described.append(f"{one.label}: {len(own)} trials, {len(bad)} of them not ok")
        rows.append(Row(one.label, looks[one.name]))
    head = "Minutes since the first trial began" if timed else "Trials by their number: no times were recorded"
    note = "; ".join(f"{name}: {_HEIGHT_NAMES[at % 3]}" for at, name in enumerate(measures))
    markup = draw_matrix(Matrix([Column(head, note, scale, 8)], rows, cells, _STRIP_PX, inline=True, class_="noise"))
    caption = "Each bar is a trial (or several, where there are very many); a cross is one that failed, was void or"
    return [Picture(markup, "Timeline", f"When trials ran. {'; '.join(described)}.",
                    f"{caption} interrupted, and leads to its log.", wide=True)]  # fmt: skip


_HEIGHTS = ((3.0, 18.0), (8.0, 13.0), (13.0, 8.0))
_HEIGHT_NAMES = ("high bars", "middle", "low")


def place_trials(trials: Sequence[Trial]) -> tuple[list[Span], bool]:
    """Return when trials ran, and whether that is time: a run that has not recorded it has their numbers instead."""
    timed = [trial for trial in trials if {"began_s", "took_s"} <= trial.window.keys()]
    if not timed:
        return [Span(trial.trial - 1.0, float(trial.trial), trial) for trial in trials], False
    first = min(trial.window["began_s"] for trial in timed)
    return [_timed(trial, first) for trial in timed], True


def _timed(trial: Trial, first_s: float) -> Span:
    begin_s = trial.window["began_s"] - first_s
    return Span(begin_s / 60, (begin_s + trial.window["took_s"]) / 60, trial)


def _blocks(spans: Sequence[Span], scale: Scale, measures: Sequence[str], hue: int) -> list[Markup]:
    """Return bars of trials, one below the other by measure, those merged that would touch."""
    shapes = []
    for at, measure in enumerate(measures):
        top, height = _HEIGHTS[at % len(_HEIGHTS)]
        merged: list[tuple[float, float]] = []
        for span in spans:
            if span.trial.measure != measure:
                continue
            left, right = scale.place(span.begin), max(scale.place(span.end), scale.place(span.begin) + _FINEST)
            if merged and right - left < 2 * _FINEST and left - merged[-1][1] < _FINEST:
                merged[-1] = (merged[-1][0], max(right, merged[-1][1]))
            else:
                merged.append((left, right))
        shapes += [bar(left, min(right, 1.0), top, height, f"block c{hue}") for left, right in merged]
    return shapes


def _failures(spans: Sequence[Span], scale: Scale, logs: Mapping[int, Sequence[str]]) -> list[Markup]:
    shapes = []
    for span in pick_evenly(spans, _MOST_FAILURES):
        x = percent(scale.place((span.begin + span.end) / 2))
        trial = span.trial
        cross = element(
            "g",
            element("title", f"trial {trial.trial}, {trial.measure}, {trial.outcome}: {trial.reason[:200]}"),
            element("use", href="#cross", x=x, y=_STRIP_PX / 2, class_="cross"),
        )
        links = logs.get(trial.trial, ())
        shapes.append(element("a", cross, href=links[0]) if links else cross)
    return shapes
