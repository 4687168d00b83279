"""Draws figures: one style, one colour and marker a platform, SVG text that is always the same.

Colours are Okabe and Ito's palette (Color Universal Design, 2008), which colour-blind readers can tell apart, and
where that is used up the darkest of Paul Tol's "muted" scheme (2021). Colours and markers repeat with different
periods, so no two of fifty platforms look the same. What is emulated is drawn dashed and hollow.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from msgspec import Struct

from testbed.analysis import Run

INK, MUTED, _RULE = "#1d2733", "#5b6673", "#d9dee4"
_FIXED_COLOURS = {"container": "#0072b2", "vm": "#d55e00"}
_OTHER_COLOURS = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#332288", "#999933")
_MARKERS = {"container": "o", "vm": "D"}
_OTHER_MARKERS = ("s", "^", "v", "P", "X", "p", "<", ">")
# What text is measured with (it comes with matplotlib, so it is the same everywhere), and what it is shown in.
_MEASURED_FONT = "DejaVu Sans"
_SHOWN_FONTS = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "svg.hashsalt": "testbed",
    "font.family": _MEASURED_FONT,
    "font.size": 10.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12.0,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "figure.facecolor": "white",
}
_WIDTH_IN, HEIGHT_IN = 5.4, 3.5
_LABEL_PT = 9.5


class Look(Struct, frozen=True):
    """How one platform is drawn in every figure."""

    colour: str
    marker: str
    emulated: bool
    label: str

    @property
    def line(self) -> str:
        return "--" if self.emulated else "-"

    @property
    def face(self) -> str:
        return "white" if self.emulated else self.colour


def assign_looks(run: Run) -> dict[str, Look]:
    """Return the look of each platform, by name."""
    others = [one.name for one in run.platforms if one.name not in _FIXED_COLOURS]
    looks_by_name = {}
    for one in run.platforms:
        index = others.index(one.name) if one.name in others else 0
        colour = _FIXED_COLOURS.get(one.name, _OTHER_COLOURS[index % len(_OTHER_COLOURS)])
        marker = _MARKERS.get(one.name, _OTHER_MARKERS[index % len(_OTHER_MARKERS)])
        looks_by_name[one.name] = Look(colour, marker, one.emulated, one.label)
    return looks_by_name


@contextmanager
def draw_axes(height_in: float, into: list[str]) -> Iterator[Axes]:
    """Yield axes to draw in; at the end the SVG is appended to ``into``."""
    with mpl.rc_context():
        mpl.rcdefaults()  # not the user's own
        mpl.rcParams.update(_STYLE)
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        axes = figure.add_subplot()
        yield axes
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    into.append(text.getvalue().replace(f"'{_MEASURED_FONT}'", _SHOWN_FONTS.replace('"', "'")))


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write a text next to the right end of each line, ``(x, y, text, colour)``, moved apart where they would touch.

    To be called last: it takes the layout as it is then.
    """
    figure = axes.get_figure(root=True)
    if figure is None or not ends:
        return
    figure.draw_without_rendering()
    line_px = _LABEL_PT * 1.2 * figure.dpi / 72
    low, high = (float(axes.transAxes.transform((0, edge))[1]) for edge in (0, 1))
    ordered = sorted(ends, key=lambda end: end[1])
    heights = [line_px * (text.count("\n") + 1.3) for _, _, text, _ in ordered]
    wanted = [float(axes.transData.transform((x, y))[1]) for x, y, _, _ in ordered]
    for centre, (_, _, text, colour) in zip(spread_centres(wanted, heights, low, high), ordered, strict=True):
        position = (1.0, (centre - low) / (high - low))
        axes.annotate(
            text, position, xycoords="axes fraction", xytext=(5, 0), textcoords="offset points", color=colour,
            va="center", annotation_clip=False, fontsize=_LABEL_PT,
        )  # fmt: skip


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


def wrap_label(label: str) -> str:
    """Return a label on two lines when it is long."""
    return label.replace(" (", "\n(", 1) if len(label) > 10 else label


def set_log_scale(axes: Axes) -> None:
    """Give a y axis a logarithmic scale with plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
