"""The figures of an application's work: names, units and rows."""

from __future__ import annotations

from collections.abc import Mapping

from reports.quantities import MEBIBYTE, Quantity, format_published
from testbed.analysis import Figure, Run, estimate_work
from testbed.published import Mark, list_marks

# What every work takes besides its own figures (testbed.measures.work); counts of all kinds are in the JSON only.
CPU = Quantity("processor time of all services", "s", most_decimals=4)
_TAKEN = {
    "work_duration": Quantity("time that the work took, by the host's clock", "s", most_decimals=4),
    "work_cpu": CPU,
    "work_memory": Quantity("cgroup charge after it", "MiB", MEBIBYTE),
    "exits": Quantity("VM exits", ""),
}
# From what to what a unit is shown in its larger ones: the least value, the unit and the factor to it.
_SHOWN: Mapping[str, tuple[tuple[float, str, float], ...]] = {
    "s": ((1.0, "s", 1.0), (1e-3, "ms", 1e3), (0.0, "µs", 1e6)),
    "bytes": ((0.0, "MiB", MEBIBYTE),),
    "bytes/s": ((1e9, "GB/s", 1e-9), (0.0, "MB/s", 1e-6)),
    "flop/s": ((1e9, "Gflop/s", 1e-9), (0.0, "Mflop/s", 1e-6)),
    "1/s": ((1e6, "million/s", 1e-6), (0.0, "/s", 1.0)),
}
_NOT_SHOWN = ("page_faults", "major_faults", "context_switches", "exits_", "host_", "counting", "throttled")


def describe_figure(name: str, unit: str, largest: float, least: float = 0.0) -> Quantity:
    """Return a figure as it is shown, in a unit in which the ``largest`` of its values is a handy number; or in one in
    which the ``least`` above 0 is, where the largest has no more than four digits before its point in that one, too."""
    if name in _TAKEN:
        return _TAKEN[name]
    shown, scale = _choose_unit(unit, largest)
    if least > 0 and largest * (finer := _choose_unit(unit, least))[1] < 10_000:
        shown, scale = finer
    return Quantity(name.replace("_", " "), shown, scale)


def _choose_unit(unit: str, value: float) -> tuple[str, float]:
    """Return the unit in which a value is a handy number, and the factor to it."""
    choices = _SHOWN.get(unit, ((0.0, unit, 1.0),))
    return next((one for one in choices if value >= one[0]), choices[-1])[1:]


# A figure as it is shown, with those that have it by name.
Row = tuple[Quantity, dict[str, Figure]]


def list_figures(run: Run, platforms: Mapping[str, object]) -> list[Row]:
    """Return each figure that some of the platforms has, with those that have it by name: the work's own first."""
    by_platform = {name: estimate_work(run, name) for name in platforms}
    names = dict.fromkeys(name for figures in by_platform.values() for name in figures)
    rows = []
    for name in (*(one for one in names if one not in _TAKEN), *(one for one in _TAKEN if one in names)):
        if name.startswith(_NOT_SHOWN):
            continue
        having = {platform: figures[name] for platform, figures in by_platform.items() if name in figures}
        values = [figure.estimate.value for figure in having.values()]
        unit = next(iter(having.values())).unit
        rows.append((describe_figure(name, unit, max(values), min(values)), having))
    return rows


def say_better(figure: Figure) -> str:
    """Say which way a figure of the work is better: more of what there is in a second, less of what takes time."""
    return "more is better" if figure.unit.endswith("/s") else "less is better"


def list_leading(run: Run, platforms: Mapping[str, object]) -> list[Row]:
    """Return what a sentence says of the work: the first of its own figures, and the processor time that it took."""
    rows = list_figures(run, platforms)
    return [*rows[:1], *(row for row in rows[1:] if row[0] == CPU)]


def show_published(mark: Mark, like: Quantity | None = None) -> str:
    """Return a published figure with its standard deviation and number of runs, in the unit of ``like``, or its own."""
    if mark.unit == "1":
        return f"x {mark.value:.2f} {mark.of}"
    quantity = like or describe_figure(mark.figure, mark.unit, mark.value)
    spread = "" if mark.sd is None else f" ± {format_published(mark.sd * quantity.scale)}"
    runs = "" if mark.n is None else f" (n = {mark.n})"
    return f"{format_published(mark.value * quantity.scale)}{spread} {quantity.unit}{runs}"


def list_published(run: Run) -> list[Mark]:
    """Return the published figures that those of the run's work are like."""
    names = dict.fromkeys(name for platform in run.platforms for name in estimate_work(run, platform.name))
    scenario = str(run.manifest.get("scenario") or "none")
    return [mark for name in names for mark in list_marks(scenario, "work", name)]
