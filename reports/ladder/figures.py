"""The pictures of the ladder's page: both histories on one axis, the price of each wall, where a start's time goes."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from reports.figures.chart import Chart, Point, Series, draw_chart
from reports.figures.marks import Look, Picture, bar, element, join, marker, plot, segment, words
from reports.figures.matrix import Cell, Column, Matrix, Row, draw_matrix
from reports.figures.scales import Scale, choose_scale
from reports.figures.ticks import draw_ticks, place_ticks
from reports.ladder.view import EXPLAINED, QUANTITIES, Subject, View
from reports.ladder.wording import begin
from reports.theme import HUES
from testbed.rungs.model import Rung, Side

SIDES: tuple[tuple[Side, str], ...] = (("containers", "Containers"), ("machines", "Machines"))
_FIRST_YEAR, _LAST_YEAR = 1962, 2028
_DECADES = tuple(range(1970, 2030, 10))
# px of a line of names, of a letter at 12 px, and the narrowest screen on which names are shown beside dots.
_NAME_PX, _LETTER_PX, _LEAST_WIDTH_PX = 15, 7.0, 900
_DOT_PX, _AXIS_PX = 14, 20
_PARTS_PX = 20


def draw_timelines(rungs: Sequence[Rung], run: frozenset[str]) -> Picture:
    """Draw each side's rungs over the years: full where it was run here, hollow where it is only told of."""
    scale = Scale("linear", _FIRST_YEAR, _LAST_YEAR)
    parts: list[Markup] = []
    top = 0.0
    for number, (side, title) in enumerate(SIDES):
        own = sorted((one for one in rungs if one.side == side), key=lambda one: (one.year, one.name))
        lines = _arrange([(scale.place(one.year), one.name) for one in own])
        height = max(lines, default=0) * _NAME_PX + 2 * _NAME_PX
        base = top + height + _DOT_PX
        parts.append(words(title, 0, top + 12, class_="lane"))
        parts.append(segment(0, base, 1, base, "axis-line"))
        for one, line in zip(own, lines, strict=True):
            parts.append(_draw_rung(one, scale.place(one.year), base, line, number, one.name in run))
        top = base + _DOT_PX
    labels = [(float(year), str(year)) for year in _DECADES]
    grid = [segment(scale.place(year), 0, scale.place(year), top, "grid") for year, _ in labels]
    ticks = draw_ticks(place_ticks(scale, labels, at_ends=False), top + 14)
    told = "; ".join(f"{one.year} {one.title}" for one in sorted(rungs, key=lambda one: one.year))
    markup = element("div", element("div", plot(top + _AXIS_PX, *grid, *parts, *ticks), class_="axis"), class_="years")
    caption = "A full mark was run here; a hollow one is told of, or could not be run here. Each leads to its story."
    return Picture(markup, "", f"When each rung came: {told}.", caption, wide=True)


def _arrange(placed: Sequence[tuple[float, str]]) -> list[int]:
    """Return the line of each name, from 0 at the axis up, so that no two touch on a wide screen."""
    ends: list[float] = []
    lines = []
    for x, name in placed:
        width = (_LETTER_PX * len(name) + 12) / _LEAST_WIDTH_PX
        left = min(x, 1 - width)
        line = next((at for at, end in enumerate(ends) if end <= left), len(ends))
        ends[line : line + 1] = [left + width]
        lines.append(line)
    return lines


def _draw_rung(rung: Rung, x: float, base: float, line: int, lane: int, was_run: bool) -> Markup:
    y = base - _NAME_PX - line * _NAME_PX
    look = Look(lane, 0, not was_run, rung.name)
    at_end = x + _LETTER_PX * len(rung.name) / _LEAST_WIDTH_PX > 1
    name = words(rung.name, x, y + 4, "end" if at_end else "start", -4 if at_end else 4, f"c{lane} name")
    stem = segment(x, y, x, base, f"leader c{lane} name")
    return element("a", element("title", f"{rung.year}: {rung.title}"), stem, marker(look, x, base), name,
                   href=f"#rung-{rung.name}")  # fmt: skip


def draw_price(view: View, metric: str, *, wide: bool) -> Picture | None:
    """Draw what a metric costs against how many probes were blocked; None where nothing has both."""
    quantity = QUANTITIES[metric]
    series = []
    described = []
    most = max((view.tally(one.name).tried for one in view.subjects), default=0)
    for one in view.subjects:
        estimate, tally = view.costs.get((one.name, metric)), view.tally(one.name)
        if estimate is None or not tally.tried:
            continue
        y = estimate.value * quantity.scale
        point = Point(tally["blocked"], y, estimate.low * quantity.scale, estimate.high * quantity.scale)
        series.append(Series(one.label if wide else "", one.look, [point], line=False))
        described.append(f"{one.label}: {tally['blocked']} blocked, {quantity.show(estimate.value)}")
    if not series:
        return None
    values = [value for one in series for at in one.points for value in (at.low, at.y, at.high) if value is not None]
    scale = choose_scale(values)
    log = ", log scale" if scale.kind == "log" else ""
    chart = Chart(
        Scale("linear", 0.0, max(1.0, most * 1.02)), scale, "probes blocked, of those that could be tried",
        f"{quantity.title}{f' in {quantity.unit}' if quantity.unit else ''}{log}", series,
        height_px=max(230.0, 17.0 * len(series)) if wide else 170.0, leaders=True,
    )  # fmt: skip
    title = "Price of each wall" if wide else begin(quantity.title)
    caption = f"{begin(EXPLAINED[metric])}."
    if not wide:
        caption += " Marks are those of the figure above."
    else:
        caption += (
            " To the right is more isolation, down is cheaper. Medians; bars are 95 % intervals or, of fewer than"
        )
        caption += " six trials, the range."
    return Picture(draw_chart(chart), title, f"{title}: {'; '.join(described)}.", caption, wide=wide)


def list_parts(view: View) -> tuple[str, ...]:
    """Return the parts of a start that are on record, the most costly first."""
    total: dict[str, float] = {}
    for one in view.subjects:
        for part, took_us in view.parts_of(one.name).items():
            total[part] = total.get(part, 0.0) + took_us
    return tuple(sorted(total, key=lambda part: (-total[part], part)))


def draw_parts(view: View) -> Picture | None:
    """Draw where the time of each start goes that our launcher made; None where no steps were timed."""
    timed: list[tuple[Subject, dict[str, float]]] = [
        (one, parts) for one in view.subjects if (parts := view.parts_of(one.name))
    ]
    if not timed:
        return None
    order = list_parts(view)
    longest = max(sum(parts.values()) for _, parts in timed) / 1e3
    scale = Scale("linear", 0.0, longest * 1.02)
    rows, cells, described = list[Row](), {}, []
    for at, (one, parts) in enumerate(timed):
        rows.append(Row(one.label, one.look))
        total_ms = sum(parts.values()) / 1e3
        cells[at, 0] = Cell(_draw_bars(parts, order, scale), f"{total_ms:.2f} ms")
        said = ", ".join(f"{part} {took_us / 1e3:.2f} ms" for part, took_us in parts.items())
        described.append(f"{one.label}: {said}")
    column = Column("Milliseconds until the program inside runs, by the parts of its plan", scale=scale, ticks=6)
    key = [element("li", _draw_swatch(at), part) for at, part in enumerate(order)]
    markup = join(
        element("ul", *key, class_="key shown"),
        draw_matrix(Matrix([column], rows, cells, _PARTS_PX, inline=True)),
    )
    caption = "Sums of the steps' medians, each noted by the launcher as it is done. Rungs that another program starts"
    return Picture(markup, "Where the time of a start goes", f"Parts of starts: {'; '.join(described)}.",
                   f"{caption} have no steps of ours.", wide=True)  # fmt: skip


def _draw_bars(parts: dict[str, float], order: Sequence[str], scale: Scale) -> Markup:
    shapes, left_ms = [], 0.0
    for at, part in enumerate(order):
        if took_us := parts.get(part, 0.0):
            right_ms = left_ms + took_us / 1e3
            hue = at % len(HUES)
            shapes.append(bar(scale.place(left_ms), scale.place(right_ms), 4, 12, f"bar c{hue}", hue))
            left_ms = right_ms
    return join(*shapes)


def _draw_swatch(at: int) -> Markup:
    hue = at % len(HUES)
    return element("svg", bar(0, 1, 0, 12, f"bar c{hue}", hue), class_="swatch", aria_hidden="true")
