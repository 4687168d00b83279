"""A comparison as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from msgspec import Struct

from reports.runs import terminal, wording
from reports.templating import make_environment
from testbed.runs.compare import Comparison, Row

_WIDTH, _HEIGHT = 220, 22
# A change beyond is drawn at the edge of the picture, as an arrow.
_MOST = 1.0


class Drawn(Struct, frozen=True):
    """A row with its picture."""

    line: wording.Line
    picture: Markup


def render_page(comparison: Comparison, gate: bool) -> str:
    """Render the page; the same comparison always gives the same bytes."""
    environment = make_environment()
    reach = find_reach(comparison.rows)
    pairs = zip(wording.make_lines(comparison), comparison.rows, strict=True)
    return environment.get_template("comparison.html.j2").render(
        comparison=comparison,
        before=wording.describe_side(comparison.before.runs, comparison.before.commits),
        after=wording.describe_side(comparison.after.runs, comparison.after.commits),
        headline=wording.describe_result(comparison) if gate else f"{comparison.scenario}: two sides compared",
        gate=gate,
        differences=terminal.list_differences(comparison.differences),
        rows=[Drawn(line, draw_change(row, reach)) for line, row in pairs],
        others=wording.list_failures(comparison),
        reach=wording.show_percent(reach),
    )


def find_reach(rows: Sequence[Row]) -> float:
    """Return up to which relative change the pictures' common axis goes, on either side."""
    ends = [
        abs(end)
        for row in rows
        if row.change
        for end in (row.change.value, row.change.low, row.change.high)
        if end is not None
    ]
    return min(_MOST, max(0.02, *ends)) if ends else _MOST


def draw_change(row: Row, reach: float) -> Markup:
    """Draw a change as a dot on its interval, worse to the right; the line in the middle is no change."""
    if row.change is None:
        return Markup("")
    harm = row.change.harm(row.figure.direction.better)

    def place(value: float) -> float:
        return round((1 + max(-1.0, min(1.0, value / reach))) / 2 * (_WIDTH - 16) + 8, 1)

    middle, y = place(0), _HEIGHT / 2
    parts = [f'<line x1="{middle}" x2="{middle}" y1="1" y2="{_HEIGHT - 1}" class="zero"/>']
    if harm.low is not None and harm.high is not None:
        parts.append(f'<line x1="{place(harm.low)}" x2="{place(harm.high)}" y1="{y}" y2="{y}" class="interval"/>')
    parts.append(f'<circle cx="{place(harm.value)}" cy="{y}" r="4.5" class="dot"/>')
    label = f"{wording.show_percent(harm.value)} for the worse"
    head = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{label}">'
    return Markup(head + "".join(parts) + "</svg>")  # noqa: S704 # made of numbers alone
