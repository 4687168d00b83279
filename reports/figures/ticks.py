"""Labels of a horizontal axis that never touch: each is shown from that width of its column on at which it has room.

A figure is as wide as the reader's screen or paper makes it, so the choice is made there, by CSS container queries
(CSS Containment Level 3): a class at each label names the least width, and ``write_rules`` has a rule for each class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup
from msgspec import Struct

from reports.figures.marks import words
from reports.figures.scales import Scale

# px: a label that would leave a column of this width by more than so much begins or ends at its tick.
_NARROW_PX, _BEYOND_PX = 120, 3
# px of FIGURE_PX text: the widest digit of usual fonts (DejaVu Sans, 0.64 em), and what must be between two labels.
_DIGIT_PX, _GAP_PX = 7.7, 6.0
# px. A label that needs more than the last has no place on any screen.
WIDTHS = (30, 40, 50, 60, 70, 80, 100, 120, 140, 160, 190, 220, 260, 300, 350, 400, 500, 600, 800, 1000, 1400)

Anchor = str  # start, middle or end, as SVG has it


class Tick(Struct, frozen=True):
    """A label: where it is on its axis (0 to 1), its text and its anchor, and the least width (px) at which it is
    shown."""

    x: float
    text: str
    anchor: Anchor
    least_px: int

    def span(self, width_px: float) -> tuple[float, float]:
        """Return from where to where it is on an axis of this width."""
        left, right = _extents(self.text, self.anchor)
        return self.x * width_px - left, self.x * width_px + right


def place_ticks(scale: Scale, labels: Sequence[tuple[float, str]], at_ends: bool = True) -> list[Tick]:
    """Return the labels, ascending, that have room on some screen; the outermost have the first right to it, then the
    middle ones. With ``at_ends`` none leaves the axis."""
    placed = [(scale.place(value), text) for value, text in labels]
    anchors = [_choose_anchor(x, text) if at_ends else "middle" for x, text in placed]
    ticks: dict[int, Tick] = {}
    for at in _order(len(placed)):
        x, text = placed[at]
        needed = max((_least_apart(x, text, anchors[at], other) for other in ticks.values()), default=0.0)
        if (least_px := next((width for width in WIDTHS if width >= needed), None)) is not None:
            ticks[at] = Tick(x, text, anchors[at], least_px if needed > 0 else 0)
    return [ticks[at] for at in sorted(ticks)]


def _choose_anchor(x: float, text: str) -> Anchor:
    needed = (_DIGIT_PX * len(text) / 2 - _BEYOND_PX) / _NARROW_PX
    return "start" if x < needed else "end" if x > 1 - needed else "middle"


def _order(count: int) -> list[int]:
    """Return 0 to ``count`` - 1: both ends, then what halves the gaps, again and again."""
    order = [0, count - 1] if count > 1 else list(range(count))
    gaps = [(0, count - 1)]
    while gaps:
        first, last = gaps.pop(0)
        if last - first > 1:
            middle = (first + last) // 2
            order.append(middle)
            gaps += [(first, middle), (middle, last)]
    return order


def _extents(text: str, anchor: Anchor) -> tuple[float, float]:
    """Return how far a label reaches to the left and to the right of its tick, px."""
    width = _DIGIT_PX * len(text)
    return {"start": (0.0, width), "middle": (width / 2, width / 2), "end": (width, 0.0)}[anchor]


def _least_apart(x: float, text: str, anchor: Anchor, other: Tick) -> float:
    """Return the least width of an axis on which two labels are apart; it grows with the width what they are apart."""
    here, there = _extents(text, anchor), _extents(other.text, other.anchor)
    needed = _GAP_PX + (here[1] + there[0] if x < other.x else there[1] + here[0])
    return needed / abs(x - other.x) if x != other.x else math.inf


def draw_ticks(ticks: Sequence[Tick], y: float) -> list[Markup]:
    """Return the labels, at ``y`` pixels."""
    return [words(one.text, one.x, y, one.anchor, class_=f"w{one.least_px}" if one.least_px else None) for one in ticks]


def write_rules() -> str:
    """Return the CSS that hides labels in what is narrower than they need; their axis is in an element ``.axis``."""
    return " ".join(
        f"@container (max-width: {width - 0.02:.2f}px) {{ .w{width} {{ display: none }} }}" for width in WIDTHS
    )
