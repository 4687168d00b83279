"""What neighbours did to the application: under each neighbour a row a platform, a column a ratio to the same alone."""

from __future__ import annotations

from collections.abc import Mapping

from reports.figures.marks import Look, Picture, assign_looks, join, marker, segment
from reports.figures.matrix import Cell, Column, Matrix, Row, draw_matrix
from reports.figures.scales import Scale, choose_scale
from reports.neighbours import RATIOS, choose_tail, describe_boundaries, describe_effect, list_measured, show_ratio
from testbed.analysis import Run, list_compared
from testbed.interference import MEASURE, THROUGHPUT, Interference
from testbed.statistics import Estimate

_STRIP_PX = 20


def draw_neighbours(run: Run) -> list[Picture]:
    """Draw the ratios of latency and throughput beside each neighbour. None without the measure."""
    platforms = list_compared(run, MEASURE)
    measured = list_measured(run, platforms)
    if not measured:
        return []
    tail = choose_tail(one for effects in measured.values() for one in effects)
    names = list(dict.fromkeys(("latency_p50", tail, THROUGHPUT)))
    scales = {name: _scale(measured, name) for name in names}
    columns = [Column(RATIOS[name].title, "relative to alone", scales[name], ticks=4) for name in names]
    looks = assign_looks(run)
    cases = dict.fromkeys(one.case.name for effects in measured.values() for one in effects)
    rows: list[Row] = []
    cells: dict[tuple[int, int], Cell] = {}
    described = []
    for case in cases:
        rows.append(Row(case, heading=True))
        for one in platforms:
            effect = next((of for of in measured.get(one.name, ()) if of.case.name == case), None)
            if effect is None:
                continue
            for at, name in enumerate(names):
                cells[len(rows), at] = _cell(effect, name, scales[name], looks[one.name], tail)
            described.append(f"{case}, {one.label}: {describe_effect(effect, tail)}")
            rows.append(Row(one.label, looks[one.name]))
    drawn = draw_matrix(Matrix(columns, rows, cells, _STRIP_PX, class_="work"))
    caption = (
        "Dot: median over blocks of the ratio to the application alone; line: its 95 % interval, or the range of fewer"
        f" than six blocks. The line through all rows is 1: nothing changed. {describe_boundaries(run, platforms)}"
    ).strip()
    alt = f"The application beside neighbours, relative to alone. {'; '.join(described)}."
    return [Picture(drawn, "Beside a neighbour that turns bad", alt, caption, wide=True)]


def _scale(measured: Mapping[str, tuple[Interference, ...]], name: str) -> Scale:
    estimates = [one.ratios[name] for effects in measured.values() for one in effects if name in one.ratios]
    return choose_scale([1.0, *(edge for one in estimates for edge in (one.low, one.value, one.high))])


def _cell(effect: Interference, name: str, scale: Scale, look: Look, tail: str) -> Cell:
    base = scale.place(1.0)
    estimate: Estimate | None = effect.ratios.get(name)
    if estimate is None:
        return Cell(aside=str(describe_effect(effect, tail)), quiet=True, base=base)
    low, middle, high = (scale.place(value) for value in (estimate.low, estimate.value, estimate.high))
    y = _STRIP_PX / 2
    line = [segment(low, y, high, y, f"interval {look.classes}")] if high > low else []
    return Cell(join(*line, marker(look, middle, y)), show_ratio(name, estimate), base=base)
