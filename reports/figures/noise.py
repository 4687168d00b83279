"""What disturbed each trial, and how the figures moved while the run went on."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from markupsafe import Markup

from reports.figures.marks import Look, Picture, assign_looks, bar, join, marker, percent, segment
from reports.figures.matrix import Cell, Column, Matrix, Row, draw_matrix
from reports.figures.scales import Scale
from reports.thinning import pick_evenly
from testbed.analysis import Run, select_trials

# What a trial's window shows (testbed.host.noise), as fractions, and what of it is no disturbance but told.
_KINDS = {
    "steal": "stolen by the hypervisor below",
    "foreign_cpu": "used by other programs",
    "pressure_memory": "all waited for memory",
    "pressure_io": "all waited for the disk",
    "pressure_cpu": "some waited for a processor",
    "throttled_periods": "held back by its own quota",
}
_STRIP_PX = 26
_MOST_BARS = 240
_MOST_MARKS = 150
_LEAST_SPAN = 0.05
_LEAST_PX = 0.5


def draw_noise(run: Run) -> list[Picture]:
    """Draw both; what the run did not record is left out."""
    return [*_draw_windows(run), *_draw_drift(run)]


def _draw_windows(run: Run) -> list[Picture]:
    watched = [trial for trial in run.trials if trial.window]
    kinds = [name for name in _KINDS if any(name in trial.window for trial in watched)]
    if not kinds:
        return []
    scale = Scale("linear", 0.0, float(len(watched)))
    cells, described = {}, []
    for row, name in enumerate(kinds):
        values = [_fraction(trial.window.get(name)) for trial in watched]
        most = max(values)
        top = max(most, _LEAST_SPAN)
        cells[row, 0] = Cell(_bars(values, top), f"{most:.1%}".replace("%", " %"), aside="at most")
        described.append(f"{_KINDS[name]} at most {most:.1%}")
    disturbed = [at for at, trial in enumerate(watched) if trial.disturbances]
    crosses = [
        Markup('<use href="#cross" x="{}" y="13" class="cross"/>').format(percent((at + 0.5) / len(watched)))
        for at in pick_evenly(disturbed, _MOST_MARKS)
    ]
    cells[len(kinds), 0] = Cell(join(*crosses), f"{len(disturbed)} of {len(watched)}", aside="trials")
    rows = [*(Row(_KINDS[name]) for name in kinds), Row("disturbed, and counted all the same")]
    column = Column(
        "Every trial, in the order of the run", "part of its time or of all processors' time", scale, ticks=8
    )
    markup = draw_matrix(Matrix([column], rows, cells, _STRIP_PX, inline=True, class_="noise"))
    caption = (
        "Each row has its own height, at least 5 %. Pressure on the processors is told and not judged: the load itself"
        f" causes it.{_binned(len(watched))}"
    )
    alt = f"What disturbed {len(watched)} trials: {'; '.join(described)}; {len(disturbed)} were disturbed."
    return [Picture(markup, "Noise in each trial", alt, caption, wide=True)]


def _binned(count: int) -> str:
    return (
        "" if count <= _MOST_BARS else f" A bar is the most of {-(-count // _MOST_BARS)} trials that follow each other."
    )


def _fraction(value: object) -> float:
    return min(max(float(value), 0.0), 1.0) if isinstance(value, int | float) else 0.0


def _bars(values: Sequence[float], top: float) -> Markup:
    per_bar = -(-len(values) // _MOST_BARS)
    shapes = []
    for first in range(0, len(values), per_bar):
        most = max(values[first : first + per_bar])
        height = max((_STRIP_PX - 2) * most / top, _LEAST_PX)
        if most > 0:
            left, right = first / len(values), min(first + per_bar, len(values)) / len(values)
            shapes.append(bar(left, left + (right - left) * 0.85, _STRIP_PX - height, height, "ink-bar"))
    shapes.append(segment(0, _STRIP_PX - 0.5, 1, _STRIP_PX - 0.5, "axis-line"))
    return join(*shapes)


def _draw_drift(run: Run) -> list[Picture]:
    """Draw how far each start was from its platform's median, in the order of the run."""
    looks = assign_looks(run)
    last = max((trial.trial for trial in run.trials), default=1)
    scale = Scale("linear", 0.0, float(max(last, 1)))
    rows, cells, described = list[Row](), {}, []
    for one in run.platforms:
        starts = [(trial.trial, at) for trial in select_trials(run, "start", one.name) if (at := trial.value("ready"))]
        typical = median(at for _, at in starts) if starts else 0.0
        if len(starts) < 3 or typical <= 0:
            continue
        parts = [(order, at / typical - 1) for order, at in starts]
        top = max(max(abs(part) for _, part in parts), _LEAST_SPAN)
        cells[len(rows), 0] = Cell(_deviations(parts, top, scale, looks[one.name]), f"± {top:.0%}".replace("%", " %"))
        described.append(f"{one.label} within {top:.0%}")
        rows.append(Row(one.label, looks[one.name]))
    if not rows:
        return []
    column = Column(
        "First answer of each start, about the platform's median", "by trial, in the order of the run", scale, 8
    )
    markup = draw_matrix(Matrix([column], rows, cells, _STRIP_PX + 8, inline=True, class_="noise"))
    caption = "The height of a row is the greatest deviation, which is given to its right, at least 5 %."
    if any(len(select_trials(run, "start", one.name)) > _MOST_MARKS for one in run.platforms):
        caption += f" Of more than {_MOST_MARKS} starts, so many are drawn."
    alt = f"Deviation of each start from its platform's median: {'; '.join(described)}."
    return [Picture(markup, "Did the figures move while the run went on?", alt, caption, wide=True)]


def _deviations(parts: Sequence[tuple[int, float]], top: float, scale: Scale, look: Look) -> Markup:
    height = _STRIP_PX + 8
    middle, span = height / 2, height / 2 - 4
    marks = [
        marker(look, scale.place(order), middle - span * part / top, "small")
        for order, part in pick_evenly(parts, _MOST_MARKS)
    ]
    return join(segment(0, middle, 1, middle, "base"), *marks)
