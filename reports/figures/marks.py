"""Elements of figures as markup: everything that comes from outside is escaped here.

A figure is as wide as there is room: x is a fraction of the width and y pixels, so text keeps its size and markers
their shape on a narrow screen and on paper. Lines lie in a nested view that is stretched
(``preserveAspectRatio="none"``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape
from msgspec import Struct

from reports.theme import HATCHES, HUES, MARKERS
from testbed.analysis import Run

_FIXED = {"container": 0, "vm": 1}
_VIEW = 1000  # units of a nested view's width
Points = Sequence[tuple[float, float]]


class Picture(Struct, frozen=True):
    """A figure: its markup, its title, what it shows in words (for who cannot see it), and the line below it."""

    markup: Markup
    title: str
    alt: str
    caption: str
    wide: bool = False


class Look(Struct, frozen=True):
    """How one platform is drawn in every figure: the numbers of its hue and of its marker."""

    hue: int
    marker: int
    emulated: bool
    label: str

    @property
    def classes(self) -> str:
        """Its CSS classes; what is emulated is hollow and dashed."""
        return f"c{self.hue} emulated" if self.emulated else f"c{self.hue}"


def assign_looks(run: Run) -> dict[str, Look]:
    """Return the look of each platform, by name."""
    others = [one.name for one in run.platforms if one.name not in _FIXED]
    looks = {}
    for one in run.platforms:
        number = _FIXED[one.name] if one.name in _FIXED else 2 + others.index(one.name)
        looks[one.name] = Look(number % len(HUES), number % len(MARKERS), one.emulated, one.label)
    return looks


def element(name: str, *content: object, **attributes: object) -> Markup:
    """Return an element; a trailing ``_`` of an attribute's name is dropped, others are hyphens; None is left out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if not content and name in ("use", "line", "path", "rect", "circle", "br"):
        return Markup(f"<{name}{given}/>")  # noqa: S704 # escaped above
    inner = Markup("").join(part if isinstance(part, Markup) else escape(str(part)) for part in content)
    return Markup(f"<{name}{given}>{inner}</{name}>")  # noqa: S704 # escaped above


def join(*parts: Markup) -> Markup:
    """Return these one after the other."""
    return Markup("").join(parts)


def number(value: float) -> str:
    """Return a coordinate with as many digits as can be seen."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if math.isfinite(value) else "0"


def percent(fraction: float) -> str:
    """Return a fraction of the width as a coordinate."""
    return f"{number(100 * fraction)}%"


def define_symbols() -> Markup:
    """Return the markers and hatches that all figures of a page use."""
    markers = [element("path", id=f"m{at}", d=shape) for at, shape in enumerate(MARKERS)]
    markers += [element("path", id=f"s{at}", d=shape, transform="scale(.65)") for at, shape in enumerate(MARKERS)]
    hatches = [
        element(
            "pattern",
            element("rect", width=8, height=8, class_="tint"),
            element("path", d=shape, class_="hatch"),
            id=f"h{at}", class_=f"c{at}", width=8, height=8, patternUnits="userSpaceOnUse",
        )
        for at, shape in enumerate(HATCHES)
    ]  # fmt: skip
    cross = element("path", id="cross", d="M-4 -4L4 4M-4 4L4 -4")
    return element("svg", element("defs", *markers, cross, *hatches), class_="defs", aria_hidden="true")


def plot(height: float, *content: Markup, class_: str = "strip") -> Markup:
    """Return a drawing as wide as there is room and ``height`` pixels high."""
    return element("svg", *content, class_=class_, height=number(height), aria_hidden="true")


def marker(look: Look, x: float, y: float, class_: str = "") -> Markup:
    """Return a platform's marker with its middle at a fraction ``x`` and ``y`` pixels; one trial's is ``small``."""
    kind = "s" if class_ == "small" else "m"
    classes = f"mark {look.classes} {class_}".rstrip()
    return element("use", href=f"#{kind}{look.marker}", x=percent(x), y=number(y), class_=classes)


def segment(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line between fractions of the width."""
    return element("line", x1=percent(x1), y1=number(y1), x2=percent(x2), y2=number(y2), class_=class_)


def bar(x1: float, x2: float, y: float, height: float, class_: str, hatch: int | None = None) -> Markup:
    """Return a bar between two fractions of the width; ``hatch`` is the number of a hue."""
    fill = None if hatch is None else f"fill:url(#h{hatch})"
    left, width = min(x1, x2), abs(x2 - x1)
    return element(
        "rect", x=percent(left), y=number(y), width=percent(width), height=number(height), class_=class_, style=fill
    )


def words(text: str, x: float, y: float, anchor: str = "start", dx: float = 0, class_: str | None = None) -> Markup:
    """Return a text whose anchor is at a fraction of the width and ``dx`` pixels from there."""
    return element(
        "text", text, x=percent(x), y=number(y), dx=number(dx) if dx else None,
        text_anchor=None if anchor == "start" else anchor, class_=class_,
    )  # fmt: skip


def stretched(height: float, *shapes: Markup) -> Markup:
    """Return a nested view whose shapes are as wide as there is room."""
    return element(
        "svg", *shapes, viewBox=f"0 0 {_VIEW} {number(height)}", preserveAspectRatio="none", width="100%",
        height=number(height),
    )  # fmt: skip


def path(points: Points, class_: str, steps: bool = False, closed: bool = False) -> Markup:
    """Return a line through points (fraction, pixels) within ``stretched``; in steps: first to the side."""
    if not points:
        return Markup("")
    parts = [f"M{number(points[0][0] * _VIEW)} {number(points[0][1])}"]
    for x, y in points[1:]:
        parts.append(f"H{number(x * _VIEW)}V{number(y)}" if steps else f"L{number(x * _VIEW)} {number(y)}")
    return element("path", d="".join(parts) + "z" * closed, class_=class_, vector_effect="non-scaling-stroke")
