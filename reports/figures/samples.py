"""One load of each platform over time: what the sampler read of its instances and the host, as small multiples."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, median

from markupsafe import Markup
from msgspec import Struct

from reports.figures.marks import Picture, element, join, path, segment, stretched, words
from reports.figures.matrix import Cell, Column, Matrix, Row, draw_matrix
from reports.figures.scales import Scale
from reports.overview import select_rate
from reports.quantities import MEBIBYTE
from reports.thinning import pick_evenly, thin_series
from testbed.analysis import Platform, Run, get_offered_rate, list_compared, select_trials
from testbed.results import Trial
from testbed.timeline import Series, compute_rates, read_timeline

_HOST = "host"
_OF_TRIAL = re.compile(r"t\d+-")
_STRIP_PX = 56
_MOST_POINTS = 150
# Instances with a line of their own: so many kinds of line can be told apart.
_MOST_INSTANCES = 3
_PLATFORMS_ABREAST = 3
# A trial that has lost its samples leaves its place to another, so often.
_ATTEMPTS = 5


class Panel(Struct, frozen=True):
    """A row: its title and unit, the column of the samples that it shows, how that becomes a line in the unit, and
    whether it is of instances, of the host, or of both where both have it."""

    title: str
    unit: str
    column: str
    draw: Callable[[Series], Series]
    of_instances: bool = True
    of_host: bool = False


class Load(Struct, frozen=True):
    """A platform's trial that is drawn, and its series by instance, without the trial's number in the name."""

    platform: Platform
    trial: Trial
    series: Mapping[str, Mapping[str, Series]]


def _count(unit: float) -> Callable[[Series], Series]:
    """Return what makes a counter a line: how fast it rose from each point that is drawn to the next."""
    return lambda series: compute_rates(pick_evenly(series, _MOST_POINTS), unit)


def _peaks(series: Series) -> Series:
    return tuple((t_s, size * MEBIBYTE) for t_s, size in thin_series(series, _MOST_POINTS, max))


def _means(series: Series) -> Series:
    return tuple((t_s, 100 * part) for t_s, part in thin_series(series, _MOST_POINTS, fmean))


_PANELS = (
    Panel("Processor time", "processors busy", "cpu_ns", _count(1e9)),
    Panel("Held back by the quota", "processors", "throttled_ns", _count(1e9)),
    Panel("Memory charged", "MiB", "cgroup_bytes", _peaks),
    Panel("Host: processors busy", "% of all", "busy", _means, of_instances=False, of_host=True),
    Panel("Waiting for a processor", "% of the time", "cpu_some_us", _count(1e4), of_host=True),
    Panel("Waiting for memory", "% of the time", "memory_some_us", _count(1e4), of_host=True),
    Panel("Waiting for a disk", "% of the time", "io_some_us", _count(1e4), of_host=True),
)


def draw_samples(run: Run) -> list[Picture]:
    """Draw a column a platform; none for a run without such samples, and no row that none of them has."""
    rate = select_rate(run)
    loads = [load for one in list_compared(run, "utilisation") if (load := _find_load(run, one, rate)) is not None]
    lines = {(panel.title, load.platform): _draw_lines(panel, load) for panel in _PANELS for load in loads}
    panels = [panel for panel in _PANELS if any(lines[panel.title, load.platform] for load in loads)]
    if not panels:
        return []
    names = list(dict.fromkeys(name for load in loads for name in _pick_instances(load)))
    end_s = max(t_s for of in lines.values() for line in of.values() for t_s, _ in line)
    time = Scale("linear", 0.0, end_s or 1.0)
    drawn = [_draw_key(names)]
    for first in range(0, len(loads), _PLATFORMS_ABREAST):
        abreast = loads[first : first + _PLATFORMS_ABREAST]
        cells = {}
        for row, panel in enumerate(panels):
            axis, labels = _lay_axis(line for load in loads for line in lines[panel.title, load.platform].values())
            for at, load in enumerate(abreast):
                if of := lines[panel.title, load.platform]:
                    cells[row, at] = _draw_cell(of, names, time, axis, labels)
        columns = [Column(load.platform.label, _say_load(load.trial), time, ticks=5) for load in abreast]
        rows = [Row(panel.title, note=panel.unit) for panel in panels]
        drawn.append(draw_matrix(Matrix(columns, rows, cells, _STRIP_PX, class_="series")))
    return [
        Picture(join(*drawn), "A load over time", _describe(loads, panels, lines), _write_caption(loads), wide=True)
    ]


def _find_load(run: Run, platform: Platform, rate: float | None) -> Load | None:
    """Return the trial in the middle by what a request cost, at the rate that all kept up with or the platform's
    highest."""
    trials = [one for one in select_trials(run, "utilisation", platform.name) if one.samples]
    rates = [of for one in trials if (of := get_offered_rate(one)) is not None]
    chosen = rate if rate in rates else max(rates, default=None)
    at_rate = [trial for trial in trials if get_offered_rate(trial) == chosen]
    costs = [trial.value("cpu_per_request") or 0.0 for trial in at_rate]
    middle = median(costs) if costs else 0.0
    nearest = sorted(at_rate, key=lambda trial: abs((trial.value("cpu_per_request") or 0.0) - middle))
    for trial in nearest[:_ATTEMPTS]:
        if series := read_timeline(run, trial):
            return Load(platform, trial, {_OF_TRIAL.sub("", name, count=1): of for name, of in series.items()})
    return None


def _pick_instances(load: Load) -> list[str]:
    """Return the instances that have lines: of many those that used the most processor time."""

    def used_ns(name: str) -> float:
        counted = load.series[name].get("cpu_ns", ())
        return counted[-1][1] - counted[0][1] if counted else 0.0

    names = [name for name in load.series if name != _HOST]
    most = sorted(names, key=used_ns, reverse=True)[:_MOST_INSTANCES]
    return [name for name in names if name in most]


def _draw_lines(panel: Panel, load: Load) -> dict[str, Series]:
    """Return a panel's lines by what they are of, in its unit."""
    names = [*(_pick_instances(load) if panel.of_instances else ()), *([_HOST] if panel.of_host else ())]
    lines = {name: panel.draw(load.series.get(name, {}).get(panel.column, ())) for name in names}
    return {name: line for name, line in lines.items() if len(line) > 1}


def _lay_axis(lines: Iterable[Series]) -> tuple[Scale, Sequence[tuple[float, str]]]:
    """Return a row's axis, the same for all platforms, from 0 to a little more than the greatest, with its labels."""
    most = max((value for line in lines for _, value in line), default=0.0)
    axis = Scale("linear", 0.0, most * 1.08 or 1.0)
    return axis, axis.ticks(3) if most > 0 else [(0.0, "0")]


def _draw_cell(
    lines: Mapping[str, Series], names: Sequence[str], time: Scale, axis: Scale, labels: Sequence[tuple[float, str]]
) -> Cell:
    shapes = []
    for value, text in labels:
        y = _STRIP_PX * (1 - axis.place(value))
        shapes += [segment(0, y, 1, y, "grid"), words(text, 0, y + 4, "end", -6)]
    drawn = [
        path([(time.place(t_s), _STRIP_PX * (1 - axis.place(value))) for t_s, value in line], _style(name, names))
        for name, line in sorted(lines.items(), key=lambda item: item[0] != _HOST)
    ]
    return Cell(join(*shapes, stretched(_STRIP_PX, *drawn)))


def _style(name: str, names: Sequence[str]) -> str:
    """Return the classes of a line: instances have ink, each another kind, and the host stands back."""
    return "line of-host" if name == _HOST else f"line ink dash{names.index(name) % _MOST_INSTANCES}"


def _draw_key(names: Sequence[str]) -> Markup:
    items = [
        element(
            "li", element("svg", segment(0, 6, 1, 6, _style(name, names)), class_="swatch", aria_hidden="true"), name
        )
        for name in (*names, _HOST)
    ]
    return element("ul", *items, class_="key shown")


def _say_load(trial: Trial) -> str:
    rate = get_offered_rate(trial)
    return f"trial {trial.trial}{f', {rate:g} requests/s' if rate is not None else ''}; seconds"


def _describe(
    loads: Sequence[Load], panels: Sequence[Panel], lines: Mapping[tuple[str, Platform], Mapping[str, Series]]
) -> str:
    """Return each platform's means in words."""
    said = []
    for load in loads:
        means = [
            f"{panel.title.lower()} {name} {fmean(value for _, value in line):.3g} {panel.unit}"
            for panel in panels
            for name, line in lines[panel.title, load.platform].items()
        ]
        said.append(f"{load.platform.label} (trial {load.trial.trial}): {', '.join(means)}")
    return f"Means of one load over time. {'; '.join(said)}."


def _write_caption(loads: Sequence[Load]) -> str:
    several = any(len(load.series) - (_HOST in load.series) > _MOST_INSTANCES for load in loads)
    left_out = f" Of many instances the {_MOST_INSTANCES} that used the most processor time." if several else ""
    return (
        "One trial of each platform, in the middle by the processor time of a request, from the end of the warm-up on."
        " Each row has one axis. Processor time, held back (throttled) and waiting (pressure: some of PSI) are means"
        f" from one point to the next, memory is the greatest charge between them.{left_out}"
    )
