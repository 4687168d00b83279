"""The colours of a report, light and dark, and the styles of its figures.

Hues follow Okabe and Ito (Color Universal Design, 2008), darkened for paper and lightened for a dark screen until each
can be read as text: WCAG 2.1 (section 1.4.3, level AA) asks for a contrast of 4.5. They repeat with another period than
the markers, so no two of seventy platforms look the same; in grey, markers and hatches tell them apart.
"""

from __future__ import annotations

from collections.abc import Mapping

# What text and marks stand on, and what is written there.
SURFACES = ("paper", "wash", "alarm-wash", "note-wash")
TEXTS = ("ink", "muted", "link", "alarm", "note")
LIGHT: Mapping[str, str] = {
    "paper": "#ffffff", "wash": "#f3f5f8", "alarm-wash": "#fdf1ef", "note-wash": "#fcf6e6",
    "ink": "#1b2430", "muted": "#55606d", "link": "#0b5a8f", "alarm": "#9f1f17", "note": "#6d4a00",
    "rule": "#d7dde4", "line": "#8d98a5",
}  # fmt: skip
DARK: Mapping[str, str] = {
    "paper": "#12171d", "wash": "#1a2129", "alarm-wash": "#331a19", "note-wash": "#2d2512",
    "ink": "#e7ebf0", "muted": "#a6b1be", "link": "#7cc0f5", "alarm": "#ff9d92", "note": "#efc468",
    "rule": "#313b46", "line": "#6f7b88",
}  # fmt: skip
# One after the other, on paper and on a dark screen.
HUES = (
    ("#0063a8", "#5db2f2"),  # blue
    ("#b23f00", "#ff9150"),  # vermilion
    ("#00704c", "#3fc795"),  # green
    ("#9c3374", "#ee8cc4"),  # purple red
    ("#755800", "#dfb63a"),  # yellow
    ("#5b46b5", "#ab9bff"),  # violet
    ("#00687a", "#4cc9dc"),  # sky
    ("#8a2333", "#f58a97"),  # wine
)
# Symbols about 9 px wide, around their own middle.
MARKERS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "M0 -5L5 0L0 5L-5 0z",
    "M-3.7 -3.7h7.4v7.4h-7.4z",
    "M0 -4.8L4.6 3.6h-9.2z",
    "M0 4.8L4.6 -3.6h-9.2z",
    "M-1.6 -4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z",
    "M-4.8 0L3.6 -4.6v9.2z",
    "M4.8 0L-3.6 -4.6v9.2z",
    "M0 -5L4.8 -1.5L2.9 4.1h-5.8L-4.8 -1.5z",
)
# Lines of a hatch in a square of 8 px, one for each hue.
HATCHES = (
    "M0 8L8 0M-2 2L2 -2M6 10L10 6",
    "M0 0L8 8M-2 6L2 10M6 -2L10 2",
    "M0 4H8",
    "M4 0V8",
    "M0 4H8M4 0V8",
    "M0 8L8 0M0 0L8 8",
    "M2 2h1M6 6h1",
    "M0 2H8M0 6H8",
)
# What hatched areas are filled with, of their own hue.
TINT = 0.2
# How much of a part's hue cells have that show a share of a whole, from the least share to all of it.
SHARES, _SHARE_HUE = (0.1, 0.2, 0.3, 0.4), 2
# px: SI of every text in a figure, and of the smallest text of the page.
FIGURE_PX, SMALLEST_PX = 12, 11.5


def write_variables(dark: bool) -> str:
    """Return the theme's custom properties as CSS declarations."""
    named = DARK if dark else LIGHT
    hues = {f"c{number}": pair[dark] for number, pair in enumerate(HUES)}
    return " ".join(f"--{name}: {colour};" for name, colour in {**named, **hues}.items())


def list_shares(dark: bool) -> list[str]:
    """Return the grounds of cells that show a share, from the least to the whole."""
    paper = (DARK if dark else LIGHT)["paper"]
    return [blend(HUES[_SHARE_HUE][dark], paper, opacity) for opacity in SHARES]


def write_shares(dark: bool) -> str:
    """Return these grounds as CSS declarations."""
    return " ".join(f"--share{number}: {colour};" for number, colour in enumerate(list_shares(dark), 1))


def write_classes() -> str:
    """Return the classes that give a platform or a part its hue."""
    return " ".join(f".c{number}{{--c:var(--c{number})}}" for number in range(len(HUES)))


def blend(above: str, below: str, opacity: float) -> str:
    """Return the colour that one gives over another."""
    pairs = zip(_channels(above), _channels(below), strict=True)
    return "#" + "".join(f"{round(one * opacity + other * (1 - opacity)):02x}" for one, other in pairs)


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, 1 to 21 (WCAG 2.1, definition of contrast ratio)."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))


def _luminance(colour: str) -> float:
    """Return the relative luminance (WCAG 2.1)."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (channel / 255 for channel in _channels(colour))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
