"""A chart of lines against two axes: series with intervals, limits, and labels at the lines' ends.

Labels stand at the right end of their lines on a wide screen; on a narrow one and on paper a key above says the same.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from markupsafe import Markup
from msgspec import Struct

from reports.figures.marks import Look, element, marker, number, path, percent, plot, segment, stretched, words
from reports.figures.matrix import draw_sign
from reports.figures.scales import Scale
from reports.figures.ticks import draw_ticks, place_ticks

HEIGHT_PX = 230
_LINE_PX = 14
_LABEL_CHARACTERS = 22
# More marks than this hide each other, and the line says it all.
_MOST_MARKS = 60


class Point(Struct, frozen=True):
    """A point in the chart's units, with the interval of its y."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


class Series(Struct, frozen=True):
    """A line: its points in order, its label, and how it is drawn.

    ``faint`` is a line beside another of the same platform; ``ring`` and ``cross`` are points to be marked: the last
    that held a limit, and the first that broke it.
    """

    label: str
    look: Look
    points: Sequence[Point]
    faint: bool = False
    line: bool = True
    ring: Point | None = None
    cross: Point | None = None


class Limit(Struct, frozen=True):
    """A horizontal line with its label."""

    y: float
    label: str


class Band(Struct, frozen=True):
    """A vertical band between two x, with a short label."""

    low: float
    high: float
    label: str
    level: int = 0


class Chart(Struct, frozen=True):
    """A whole chart; ``x_ticks`` are given where the axis' own would mislead (whole numbers, percentiles). With
    ``leaders`` a line leads from each series' last point to its label."""

    x: Scale
    y: Scale
    x_label: str
    y_label: str
    series: Sequence[Series]
    limits: Sequence[Limit] = ()
    bands: Sequence[Band] = ()
    x_ticks: Sequence[tuple[float, str]] = ()
    height_px: float = HEIGHT_PX
    leaders: bool = False


def draw_chart(chart: Chart) -> Markup:
    """Return the chart with its key."""
    height = chart.height_px
    drawn: list[Markup] = [*_bands(chart), *_axes(chart)]
    lines = [shape for one in chart.series for shape in _lines(chart, one)]
    drawn.append(stretched(height, *lines))
    drawn += [shape for one in chart.series for shape in _marks(chart, one)]
    drawn += _ends(chart)
    key = [
        element("li", draw_sign(one.look), one.label)
        for one in {series.look.label: series for series in chart.series if not series.faint}.values()
    ]
    return element(
        "div",
        element("div", chart.y_label, class_="y-label"),
        element("ul", *key, class_="key"),
        element("div", plot(height + 22, *drawn), class_="axis"),
        element("div", chart.x_label, class_="x-label"),
        class_="plot",
    )


def _y(chart: Chart, value: float) -> float:
    return chart.height_px * (1 - chart.y.place(value))


def _axes(chart: Chart) -> list[Markup]:
    shapes: list[Markup] = []
    for value, text in chart.y.ticks(5):
        y = _y(chart, value)
        shapes += [segment(0, y, 1, y, "grid"), words(text, 0, y + 4, "end", -7)]
    labels = chart.x_ticks or chart.x.ticks(6)
    for x in (chart.x.place(value) for value, _ in labels):
        shapes.append(segment(x, chart.height_px, x, chart.height_px + 4, "axis-line"))
    shapes += draw_ticks(place_ticks(chart.x, labels, at_ends=False), chart.height_px + 17)
    shapes.append(segment(0, chart.height_px, 1, chart.height_px, "axis-line"))
    for limit in chart.limits:
        shapes.append(segment(0, _y(chart, limit.y), 1, _y(chart, limit.y), "limit"))
    return shapes


def _bands(chart: Chart) -> list[Markup]:
    shapes: list[Markup] = []
    for one in chart.bands:
        left, right = chart.x.place(one.low), chart.x.place(one.high)
        width = percent(max(right - left, 0.004))
        shapes.append(element("rect", x=percent(left), y=0, width=width, height=chart.height_px, class_="band"))
        shapes.append(words(one.label, (left + right) / 2, 12 + 14 * one.level, "middle", class_="quiet"))
    return shapes


def _lines(chart: Chart, one: Series) -> list[Markup]:
    classes = f"{one.look.classes}{' faint' if one.faint else ''}"
    placed = [(chart.x.place(point.x), _y(chart, point.y)) for point in one.points]
    return [path(placed, f"line {classes}")] if one.line and len(placed) > 1 else []


def _marks(chart: Chart, one: Series) -> list[Markup]:
    shapes: list[Markup] = []
    for point in one.points if len(one.points) <= _MOST_MARKS else ():
        x = chart.x.place(point.x)
        if point.low is not None and point.high is not None and point.high > point.low:
            shapes.append(segment(x, _y(chart, point.low), x, _y(chart, point.high), f"whisker {one.look.classes}"))
        shapes.append(marker(one.look, x, _y(chart, point.y), "faint" if one.faint else ""))
    if one.ring is not None:
        shapes.append(element("circle", r=9, class_=f"ring {one.look.classes}", **_at(chart, one.ring, "cx", "cy")))
    if one.cross is not None:
        shapes.append(element("use", href="#cross", class_="cross", **_at(chart, one.cross, "x", "y")))
    return shapes


def _at(chart: Chart, point: Point, x: str, y: str) -> dict[str, str]:
    """Return where a point is, as the attributes of these names."""
    return {x: percent(chart.x.place(point.x)), y: number(_y(chart, point.y))}


def _ends(chart: Chart) -> list[Markup]:
    """Return the labels beside the right ends, moved apart where they would touch."""
    ends = [
        (_y(chart, one.points[-1].y), textwrap.wrap(one.label, _LABEL_CHARACTERS)[:3], f"c{one.look.hue} name",
         chart.x.place(one.points[-1].x))
        for one in chart.series
        if one.points and one.label
    ]  # fmt: skip
    ends += [(_y(chart, one.y), textwrap.wrap(one.label, _LABEL_CHARACTERS), "name quiet", 1.0) for one in chart.limits]
    ends.sort(key=lambda end: end[0])
    heights = [_LINE_PX * len(lines) + 2 for _, lines, _, _ in ends]
    centres = spread_centres([y for y, _, _, _ in ends], heights, 0, chart.height_px)
    shapes = []
    for centre, (y, lines, class_, x) in zip(centres, ends, strict=True):
        if chart.leaders:
            shapes.append(segment(x, y, 1, centre, f"leader {class_}"))
        top = centre - _LINE_PX * (len(lines) - 1) / 2 + 4
        for at, text in enumerate(lines):
            shapes.append(words(text, 1, top + at * _LINE_PX, "start", 10, class_))
    return shapes


def spread_centres(wanted: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Return centres near those ``wanted`` (ascending), so that boxes of these ``heights`` do not overlap.

    Within ``low`` to ``high`` where there is room for all.
    """
    centres: list[float] = []
    floor = low
    for centre, height in zip(wanted, heights, strict=True):
        centres.append(max(centre, floor + height / 2))
        floor = centres[-1] + height / 2
    ceiling = max(high, low + sum(heights))
    for index in reversed(range(len(centres))):
        centres[index] = min(centres[index], ceiling - heights[index] / 2)
        ceiling = centres[index] - heights[index] / 2
    return centres
