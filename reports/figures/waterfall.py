"""Where the time of a start goes: the same phase in the same row, every platform on the same axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from markupsafe import Markup
from msgspec import Struct

from reports.conditions import unit_of_time
from reports.figures.marks import Look, Picture, assign_looks, bar, join, marker, segment
from reports.figures.matrix import Cell, Column, Matrix, Row, draw_matrix
from reports.figures.scales import Scale, choose_scale
from reports.quantities import START, describe_phase
from reports.thinning import thin_ranks
from testbed.analysis import START_PHASES, Platform, Run, list_compared, select_trials
from testbed.results import THROTTLED, THROTTLED_PERIODS

_PLATFORMS_ABREAST = 4
_STRIP_PX = 20
_MOST_MARKS = 40
_COUNTED = (THROTTLED, THROTTLED_PERIODS)


class Stage(Struct, frozen=True):
    """One phase in all counted trials: when it was reached, in seconds since the request, and the median of the time
    that it took, from the phase before it in the same trial."""

    name: str
    reached_s: tuple[float, ...]
    took_s: float

    @property
    def median_s(self) -> float:
        """The median of when it was reached."""
        return median(self.reached_s)


def order_stages(run: Run, platform: Platform) -> list[Stage]:
    """Return every phase, the application's last, in the order in which a service's are reached."""
    trials = select_trials(run, "start", platform.name)
    reached: dict[str, dict[int, float]] = {}
    for trial in trials:
        for metric in trial.metrics:
            own = metric.metric.rpartition(".")
            if metric.unit == "s" and (own[1] or metric.metric in START_PHASES) and own[2] not in _COUNTED:
                reached.setdefault(metric.metric, {})[trial.trial] = metric.value
    services = {name: seconds for name, seconds in reached.items() if "." in name}
    own_phases = {name: reached[name] for name in START_PHASES if name in reached}
    if services:  # which say when what the application consists of got there, and whose port it is that opens
        own_phases = {name: own_phases[name] for name in ("port_open", "ready") if name in own_phases}
        own_phases = {name: seconds for name, seconds in own_phases.items() if seconds not in services.values()}
    shown = {**services, **own_phases}
    medians = {name: median(seconds.values()) for name, seconds in shown.items()}
    ordered = []
    for name, seconds in shown.items():
        before = _find_previous(name, shown, medians)
        took_s = median(at - before.get(trial, 0.0) for trial, at in seconds.items())
        ordered.append(Stage(name, tuple(seconds.values()), max(0.0, took_s)))
    return ordered


def _find_previous(
    name: str, reached: Mapping[str, Mapping[int, float]], medians: Mapping[str, float]
) -> Mapping[int, float]:
    """Return the phase that one follows, in each trial: the latest one of the same service, or, for the application's
    own, of any. Of phases that are reached at the same time the one that is listed later follows the other."""
    service, dot, _ = name.rpartition(".")
    rank = {other: (medians[other], order) for order, other in enumerate(reached)}
    earlier = [other for other in reached if rank[other] < rank[name] and (not dot or other.startswith(f"{service}."))]
    return reached[max(earlier, key=lambda other: rank[other])] if earlier else {}


def draw_start(run: Run) -> list[Picture]:
    """Draw the phases of all platforms that are compared; none without a start."""
    staged = [(one, of) for one in list_compared(run, "start") if (of := order_stages(run, one))]
    if not staged:
        return []
    names = align([of for _, of in staged])
    scale = choose_scale([at for _, of in staged for stage in of for at in stage.reached_s], "root")
    looks, drawn = assign_looks(run), []
    for first in range(0, len(staged), _PLATFORMS_ABREAST):
        abreast = staged[first : first + _PLATFORMS_ABREAST]
        columns = [Column(one.label, _count(of), scale, ticks=5) for one, of in abreast]
        stages = [{stage.name: stage for stage in of} for _, of in abreast]
        cells = {
            (row, at): _cell(stages[at][name], looks[one.name], scale)
            for row, name in enumerate(names)
            for at, (one, _) in enumerate(abreast)
            if name in stages[at]
        }
        rows = [Row(title_stage(name)) for name in names]
        drawn.append(draw_matrix(Matrix(columns, rows, cells, _STRIP_PX, inline=True, class_="waterfall")))
    alt = "Phases of the start, medians. " + " ".join(
        f"{one.label}: {', '.join(f'{title_stage(s.name)} {describe_phase(s.name).show(s.median_s)}' for s in of)}."
        for one, of in staged
    )
    caption = (
        f"{unit_of_time(run, 'Seconds').capitalize()} since the application was requested, on a square-root axis that"
        " all platforms share. A bar ends at the median and is as long as the median of what trials took since the"
        f" phase before; each mark is a trial{f' (of more than {_MOST_MARKS}, so many by rank)'}."
    )
    return [Picture(join(*drawn), "Where the time of a start goes", alt, caption, wide=True)]


def _count(of: Sequence[Stage]) -> str:
    count = max(len(stage.reached_s) for stage in of)
    return "one trial" if count == 1 else f"{count} trials"


def align(stages: Sequence[Sequence[Stage]]) -> list[str]:
    """Return the names of all phases in one order for all platforms: by service, then as they follow each other."""
    services: dict[str, None] = {}
    for of in sorted(stages, key=len, reverse=True):
        services |= dict.fromkeys(stage.name.rpartition(".")[0] for stage in of)
    services.pop("", None)
    known = list(START)
    names = dict.fromkeys(stage.name for of in stages for stage in of)
    at = {name: min(stage.median_s for of in stages for stage in of if stage.name == name) for name in names}

    def rank(name: str) -> tuple[int, int, float]:
        service, _, own = name.rpartition(".")
        place = list(services).index(service) if service else len(services)
        return place, known.index(own) if own in known else len(known), at[name]

    return sorted(names, key=rank)


def _cell(stage: Stage, look: Look, scale: Scale) -> Cell:
    middle = _STRIP_PX / 2
    end, begin = scale.place(stage.median_s), scale.place(max(0.0, stage.median_s - stage.took_s))
    marks: list[Markup] = [bar(begin, end, 4, _STRIP_PX - 8, f"bar c{look.hue}", look.hue)]
    marks += [marker(look, scale.place(at), middle, "small") for at in thin_ranks(stage.reached_s, _MOST_MARKS)]
    marks.append(segment(end, 2, end, _STRIP_PX - 2, f"median {look.classes}"))
    return Cell(join(*marks), describe_phase(stage.name).show(stage.median_s))


def title_stage(name: str) -> str:
    """Return a phase's title, with its service before it."""
    service, dot, own = name.rpartition(".")
    return f"{service}: {describe_phase(own).title}" if dot else describe_phase(own).title
