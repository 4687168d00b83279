"""The pictures of a fleet's page: before and after, what the ratio depends on, and its curves."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from reports.figures.marks import Look, Picture, bar, element, join, marker, path, plot, segment, stretched, words
from reports.fleets import wording
from reports.theme import HUES, MARKERS
from testbed.fleet.sensitivity import Curve, Point, Sensitivity
from testbed.fleet.study import Fleet

_LINE = 26  # px of a row
_LABEL, _BARS = 0.3, 0.42  # of the width: where bars begin, and how wide the longest is
_CURVE_PX = 150
_NARROW = 0.01  # of the width: less has its ends in one text


def _look(index: int, label: str, emulated: bool) -> Look:
    return Look(index % len(HUES), index % len(MARKERS), emulated, label)


def draw_utilisation(fleets: Sequence[Fleet]) -> Picture:
    """Draw how much of all processors is in use: as servers are, and on hosts, of it their own work."""
    rows: list[Markup] = []
    y = 0.0
    for fleet in fleets:
        outcome = fleet.outcome
        rows.append(
            _bar_row(
                y, "as they are", outcome.utilisation, outcome.utilisation, "ink-bar", f"{outcome.utilisation:.1%}"
            )
        )
        y += _LINE
        for index, one in enumerate(outcome.hosted):
            shown = f"{one.utilisation:.0%} on {wording.show_hosts(one.hosts)} hosts + {one.spare}"
            rows.append(_bar_row(y, one.label, one.utilisation, one.own, f"block c{index % len(HUES)}", shown))
            y += _LINE
        y += _LINE / 2
    axis = [words(f"{tick:.0%}", _place(tick), y + 6, "middle") for tick in (0.0, 0.5, 1.0)]
    grid = [segment(_place(tick), 0, _place(tick), y - 8, "grid") for tick in (0.0, 0.25, 0.5, 0.75, 1.0)]
    alt = "; ".join(wording.conclude(one.outcome) for one in fleets)
    caption = (
        "Processors in use, of all that are on; the paler end of a bar is what hosting itself takes. Spare hosts count."
    )
    return Picture(plot(y + 14, *grid, *rows, *axis), "Use of processors before and after", alt, caption, wide=True)


def _place(fraction: float) -> float:
    return _LABEL + _BARS * min(1.0, max(0.0, fraction))


def _bar_row(y: float, label: str, whole: float, own: float, class_: str, shown: str) -> Markup:
    parts = [words(label, 0, y + 14, class_="quiet")]
    if whole > own:
        parts.append(element("g", bar(_place(own), _place(whole), y + 3, 14, class_), opacity="0.45"))
    parts.append(bar(_place(0), _place(min(own, whole)), y + 3, 14, class_))
    parts.append(words(shown, _place(whole), y + 15, dx=6, class_="quiet"))
    return join(*parts)


def draw_tornado(found: Sensitivity) -> Picture:
    """Draw the ratio of hosts at the ends of each assumption, the widest swing first."""
    swings = [one for one in found.swings if one.low.ratio is not None or one.high.ratio is not None]
    ratios = [one.ratio for swing in swings for one in (swing.low, swing.high, found.central) if one.ratio is not None]
    low, high = _widen(ratios)
    middle = found.central.ratio
    rows: list[Markup] = []
    for number, swing in enumerate(swings):
        y = number * _LINE
        ends = [(one, _spot(one.ratio, low, high)) for one in (swing.low, swing.high) if one.ratio is not None]
        rows.append(words(swing.name, 0, y + 14, class_="quiet"))
        rows.append(bar(ends[0][1], ends[-1][1], y + 4, 13, "block c1"))
        left, right = min(ends, key=lambda end: end[1]), max(ends, key=lambda end: end[1])
        if right[1] - left[1] < _NARROW:
            rows.append(words(f"{swing.low.value:g}, {swing.high.value:g}", right[1], y + 15, dx=5))
        else:
            rows.append(words(f"{left[0].value:g}", left[1], y + 15, "end", dx=-5))
            rows.append(words(f"{right[0].value:g}", right[1], y + 15, dx=5))
    height = len(swings) * _LINE
    if middle is not None:
        x = _spot(middle, low, high)
        rows.append(segment(x, 0, x, height, "limit"))
    ticks = [
        words(f"{tick:.2f}", _spot(tick, low, high), height + 14, "middle") for tick in (low, (low + high) / 2, high)
    ]
    alt = "; ".join(f"{one.name}: {_say(one.low)} to {_say(one.high)}" for one in swings)
    caption = (
        f"Hosts as {found.label}, times those as {found.base}, when one assumption changes (numbers at the ends) and"
        f" all others stay; of {wording.show_count(found.servers)} servers. The dashed line: all are as stated."
    )
    return Picture(plot(height + 20, *rows, *ticks), "What the ratio depends on", alt, caption, wide=True)


def _say(point: Point) -> str:
    return "does not fit" if point.ratio is None else f"{point.ratio:.2f} at {point.value:g}"


def _widen(values: Sequence[float]) -> tuple[float, float]:
    """Return ends of an axis that has all values, with some room."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = max(0.02, (high - low) * 0.08)
    return low - room, high + room


def _spot(ratio: float | None, low: float, high: float) -> float:
    return _LABEL + 0.05 + (1 - _LABEL - 0.12) * ((ratio or low) - low) / (high - low)


def draw_curves(found: Sensitivity) -> tuple[Picture, ...]:
    """Draw the ratio of hosts along each assumption that has a curve."""
    return tuple(_draw_curve(found, curve) for curve in found.curves if any(one.ratio for one in curve.points))


def _draw_curve(found: Sensitivity, curve: Curve) -> Picture:
    points = [(one.value, one.ratio) for one in curve.points if one.ratio is not None]
    low, high = _widen([ratio for _, ratio in points])
    last = len(curve.points) - 1
    order = {one.value: number / max(1, last) for number, one in enumerate(curve.points)}  # steps, not a scale

    def x(value: float) -> float:
        return 0.12 + 0.84 * order[value]

    def y(ratio: float) -> float:
        return 8 + (_CURVE_PX - 32) * (high - ratio) / (high - low)

    look = _look(1, found.label, found.emulated)
    line = stretched(_CURVE_PX, path([(x(value), y(ratio)) for value, ratio in points], "line c1"))
    dots = [marker(look, x(value), y(ratio)) for value, ratio in points]
    ticks = [words(f"{one.value:g}", x(one.value), _CURVE_PX - 4, "middle") for one in curve.points]
    sides = [words(f"{ratio:.2f}", 0, y(ratio) + 4) for ratio in dict.fromkeys((points[0][1], points[-1][1]))]
    base = segment(0.12, y(1.0), 0.96, y(1.0), "base") if low <= 1 <= high else Markup("")
    alt = "; ".join(f"{ratio:.2f} at {value:g}" for value, ratio in points)
    caption = f"Hosts as {found.label}, times those as {found.base}. What is not drawn does not fit on a host."
    return Picture(plot(_CURVE_PX, base, line, *dots, *ticks, *sides), curve.name, alt, caption)
