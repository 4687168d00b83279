"""The figures of a run: start, density, utilisation. A trial that is not ``ok`` is in none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from matplotlib.axes import Axes
from msgspec import Struct
from msgspec.structs import replace

from reports.conditions import unit_of_time
from reports.drawing import HEIGHT_IN, INK, MUTED, Look, assign_looks, draw_axes, label_ends, set_log_scale, wrap_label
from reports.quantities import LOAD, MEBIBYTE, RULERS, Quantity, describe_phase, format_number
from testbed.analysis import (
    START_PHASES,
    Platform,
    Ramp,
    Run,
    estimate_memory_of_copies,
    estimate_start_phases,
    estimate_utilisation,
    get_mapping,
    list_compared,
    select_ramps,
    taken_bytes,
)
from testbed.results import THROTTLED, THROTTLED_PERIODS
from testbed.statistics import Estimate

# A service level beyond a day is a slip, and would squeeze all else into a line.
_LARGEST_MS = 86_400_000


class Picture(Struct, frozen=True):
    """A figure: its SVG document, what it shows in words (for who cannot see it), and the line below it."""

    svg: str
    alt: str
    caption: str


class Stage(Struct, frozen=True):
    """One phase in all ok trials: when it was reached, in seconds since the request, and the median of the time that it
    took, from the phase before it in the same trial."""

    name: str
    reached_s: tuple[float, ...]
    took_s: float

    @property
    def median_s(self) -> float:
        """The median of when it was reached."""
        return median(self.reached_s)


def draw_start(run: Run) -> list[Picture]:
    """Draw one waterfall of phases a platform; on one scale unless an emulated platform would dwarf the others."""
    staged = [
        (one, order_stages(run, one)) for one in list_compared(run, "start") if estimate_start_phases(run, one.name)
    ]
    ends = [max(max(stage.reached_s) for stage in of) for _, of in staged]
    shared = 0.0 if any(one.emulated for one, _ in staged) else max(ends, default=0.0)
    pictures = [_waterfall(run, one, of, shared or end) for (one, of), end in zip(staged, ends, strict=True)]
    if shared or len(pictures) < 2:
        return pictures
    return [replace(picture, caption=f"{picture.caption} The figures have different scales.") for picture in pictures]


def order_stages(run: Run, platform: Platform) -> list[Stage]:
    """Return every phase, the application's last, in the order in which a service's are reached."""
    trials = [
        trial
        for trial in run.trials
        if (trial.outcome, trial.measure, trial.platform) == ("ok", "start", platform.name)
    ]
    names = dict.fromkeys(
        metric.metric
        for trial in trials
        for metric in trial.metrics
        if not metric.metric.endswith((THROTTLED, THROTTLED_PERIODS))
    )
    reached = {name: {trial.trial: at for trial in trials if (at := trial.value(name)) is not None} for name in names}
    services = {name: seconds for name, seconds in reached.items() if "." in name}
    own = {name: reached[name] for name in START_PHASES if name in reached}
    if services:  # which say when what the application consists of got there, and whose port it is that opens
        own = {name: own[name] for name in ("port_open", "ready") if name in own}
        own = {name: seconds for name, seconds in own.items() if seconds not in services.values()}
    ordered, shown = [], {**services, **own}
    for name, seconds in shown.items():
        before = _find_previous(name, shown)
        took_s = median(at - before.get(trial, 0.0) for trial, at in seconds.items())
        ordered.append(Stage(name, tuple(seconds.values()), max(0.0, took_s)))
    return ordered


def _find_previous(name: str, reached: Mapping[str, Mapping[int, float]]) -> Mapping[int, float]:
    """Return the phase that one follows, in each trial: the latest one of the same service, or, for the application's
    own, of any. Of phases that are reached at the same time the one that is listed later follows the other."""
    service, dot, _ = name.rpartition(".")
    order = list(reached)
    rank = {other: (median(seconds.values()), order.index(other)) for other, seconds in reached.items()}
    earlier = [other for other in reached if rank[other] < rank[name] and (not dot or other.startswith(f"{service}."))]
    return reached[max(earlier, key=lambda other: rank[other])] if earlier else {}


def _waterfall(run: Run, platform: Platform, of: Sequence[Stage], end_s: float) -> Picture:
    look, svg = assign_looks(run)[platform.name], list[str]()
    wide = "application was requested"  # where there is room for it
    with draw_axes(1.3 + 0.3 * len(of), svg) as axes:
        for row, stage in enumerate(of):
            begin = max(0.0, stage.median_s - stage.took_s)
            axes.barh(row, stage.took_s, left=begin, height=0.62, color=look.colour, alpha=0.22, linewidth=0)
            axes.plot([stage.median_s] * 2, [row - 0.31, row + 0.31], color=look.colour, linewidth=2)
            axes.plot(
                stage.reached_s, [row] * len(stage.reached_s), look.marker, color=look.colour,
                markerfacecolor=look.face, markersize=4, alpha=0.75, linestyle="none",
            )  # fmt: skip
            _annotate_right(axes, row, describe_phase(stage.name).show(stage.median_s))
        _annotate_right(axes, -0.9, "median")
        axes.set_yticks(range(len(of)), [_stage_title(stage.name) for stage in of])
        axes.set_ylim(len(of) - 0.4, -0.6)
        axes.set_xlim(0, end_s * 1.04)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"{unit_of_time(run, 'seconds')} since the {'request' if run.instruction_time else wide}")
        axes.set_title(f"Start: {wrap_label(platform.label)}", color=look.colour)
    count = max(len(stage.reached_s) for stage in of)
    described = ", ".join(
        f"{_stage_title(stage.name)} {describe_phase(stage.name).show(stage.median_s)}" for stage in of
    )
    return Picture(
        svg[0],
        f"Phases of the start of {platform.label}, medians of {count} trials: {described}.",
        f"{platform.label}: each mark is one of {count} trials, each line the median; a bar is as long as the median of"
        " the times that trials took since the phase before.",
    )


def _annotate_right(axes: Axes, row: float, text: str) -> None:
    """Write a text in the column to the right of a row, ending at the same place as all others."""
    axes.annotate(
        text, (1.0, row), xycoords=("axes fraction", "data"), xytext=(52, 0), textcoords="offset points",
        ha="right", va="center", fontsize=9, color=INK, annotation_clip=False,
    )  # fmt: skip


def _stage_title(name: str) -> str:
    service, dot, own = name.rpartition(".")
    return f"{service}: {describe_phase(own).title}" if dot else describe_phase(own).title


def draw_density(run: Run) -> list[Picture]:
    """Draw memory against the number of copies, by each ruler, and the latency while the number grew."""
    compared = list_compared(run, "density")
    by_platform = {one.name: [ramp for ramp in select_ramps(run, one.name) if ramp.points] for one in compared}
    by_platform = {name: of for name, of in by_platform.items() if of}
    if not by_platform:
        return []
    pictures = [_memory(run, by_platform, ruler, quantity) for ruler, quantity in RULERS.items()]
    return [*pictures, _ramp_latency(run, by_platform)]


def _memory(run: Run, by_platform: Mapping[str, Sequence[Ramp]], ruler: str, quantity: Quantity) -> Picture:
    """Draw every step of the ramps, and the published estimate: the first copy, then so much for each further one."""
    svg, described, ends = list[str](), [], list[tuple[float, float, str, str]]()
    with draw_axes(HEIGHT_IN, svg) as axes:
        for name, of in by_platform.items():
            look, memory = assign_looks(run)[name], estimate_memory_of_copies(of, ruler)
            points = [(count, size * MEBIBYTE) for ramp in of for count, size in taken_bytes(ramp.points, ruler)]
            if not points or memory is None:
                continue
            x, y = zip(*points, strict=True)
            axes.plot(x, y, look.marker, color=look.colour, markerfacecolor=look.face, markersize=5, linestyle="none")
            last, first = max(x), memory.first.value * MEBIBYTE
            each = memory.further.value * MEBIBYTE if memory.further else 0.0
            axes.plot([0, 1], [0, first], color=look.colour, linestyle=":", linewidth=1.2)
            shown = f"first copy {quantity.show(memory.first.value)}"
            if memory.further:
                axes.plot([1, last], [first, first + each * (last - 1)], look.line, color=look.colour, linewidth=1.6)
                shown = f"{quantity.show(memory.further.value)} each further"
            ends.append((last, first + each * (last - 1), f"{wrap_label(look.label)}\n{shown}", look.colour))
            described.append(f"{look.label} {quantity.show(memory.first.value)} for the first copy")
            described += [f"{quantity.show(memory.further.value)} for each further one"] if memory.further else []
        _whole_copies(axes, by_platform)
        axes.set_ylabel("memory taken (MiB)")
        axes.set_title(f"Memory: {quantity.title}")
        label_ends(axes, ends)
    alt = f"Memory taken against the number of copies of the application, {quantity.title}: {'; '.join(described)}."
    caption = f"{quantity.title[0].upper()}{quantity.title[1:]}: one mark a step of a ramp. Dotted, what the first copy"
    return Picture(
        svg[0], alt, f"{caption} takes (median over ramps); then, for each further one, the mean of what it adds."
    )


def _whole_copies(axes: Axes, by_platform: Mapping[str, Sequence[Ramp]]) -> None:
    most = max((max(ramp.points.get("applications", (0,))) for of in by_platform.values() for ramp in of), default=0)
    step = max(1, round(most / 8))
    axes.set_xticks(range(0, int(most) + 1, step))
    axes.set_xlabel("copies of the application running")


def _ramp_latency(run: Run, by_platform: Mapping[str, Sequence[Ramp]]) -> Picture:
    svg, described, ends = list[str](), [], list[tuple[float, float, str, str]]()
    limit = get_mapping(get_mapping(run.manifest.get("settings")).get("slo")).get("p99_ms")
    with draw_axes(HEIGHT_IN, svg) as axes:
        for name, of in by_platform.items():
            look = assign_looks(run)[name]
            for ramp in of:
                pairs = zip(ramp.points.get("applications", ()), ramp.points.get("p99_ms", ()), strict=False)
                points = [(count, p99) for count, p99 in pairs if count > 0 and p99 > 0]
                if points:
                    x, y = zip(*points, strict=True)
                    axes.plot(
                        x, y, look.line, marker=look.marker, color=look.colour, markerfacecolor=look.face,
                        markersize=5, linewidth=1.4,
                    )  # fmt: skip
                    described.append(f"{look.label} {format_number(y[-1])} ms with {x[-1]:g}")
                    if ramp is of[-1]:
                        ends.append((x[-1], y[-1], wrap_label(look.label), look.colour))
        set_log_scale(axes)
        if isinstance(limit, int | float) and 0 < limit < _LARGEST_MS:
            axes.axhline(limit, color=MUTED, linewidth=1, linestyle=":")
            ends.append((0, limit, f"service level\n{limit:g} ms", MUTED))
        _whole_copies(axes, by_platform)
        axes.set_ylabel(f"latency p99 ({unit_of_time(run, 'ms')}, log scale)")
        axes.set_title("Latency while the ramp grew")
        label_ends(axes, ends)
    alt = f"99th percentile of latency against the number of copies, service level {limit} ms: {'; '.join(described)}."
    return Picture(svg[0], alt, "Latency over all copies at each step; beyond the dotted line the ramp stops.")


def draw_load(run: Run) -> list[Picture]:
    """Draw latency, processor time, memory and the host's utilisation against the offered rate."""
    by_platform = {one.name: estimate_utilisation(run, one.name) for one in list_compared(run, "utilisation")}
    by_platform = {name: rates for name, rates in by_platform.items() if rates}
    if not by_platform:
        return []
    ms, broken = unit_of_time(run, "ms"), "\n" if run.instruction_time else " "
    return [
        _against_rate(
            run, by_platform, ("latency_p50", "latency_p99"), "Latency", f"latency ({ms}, log scale)", log=True
        ),
        _against_rate(
            run,
            by_platform,
            ("cpu_per_request",),
            "Processor time",
            f"CPU time per request{broken}({ms}, log scale)",
            log=True,
        ),
        _against_rate(run, by_platform, ("memory_cgroup",), "Memory under load", "cgroup charge (MiB)"),
        _against_rate(
            run, by_platform, ("host_utilisation",), "Host utilisation", "busy part of the host's processors (%)"
        ),
    ]


def _against_rate(
    run: Run,
    by_platform: Mapping[str, Mapping[float, Mapping[str, Estimate]]],
    metrics: Sequence[str],
    title: str,
    unit: str,
    log: bool = False,
) -> Picture:
    svg, described, ends = list[str](), [], list[tuple[float, float, str, str]]()
    with draw_axes(HEIGHT_IN, svg) as axes:
        for name, rates in by_platform.items():
            look = assign_looks(run)[name]
            for metric in metrics:
                points = [(rate, figures[metric]) for rate, figures in rates.items() if metric in figures]
                if not points:
                    continue
                end = _series(axes, look, LOAD[metric], points, faint=metric == "latency_p50")
                shown = wrap_label(look.label) + (f"\n{metric[-3:]}" if len(metrics) > 1 else "")
                ends.append((*end, shown.replace("\np", " p") if "\n(" not in shown else shown, look.colour))
                described.append(f"{look.label} {LOAD[metric].title} {LOAD[metric].show(points[-1][1].value)}")
        if log:
            set_log_scale(axes)
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.set_xlabel("requests offered per second")
        axes.set_ylabel(unit)
        axes.set_title(title)
        label_ends(axes, ends)
    alt = f"{title} against the offered rate; at the highest rate: {'; '.join(described)}."
    return Picture(svg[0], alt, f"{title}: medians; bars are 95 % intervals, or the range of fewer than six trials.")


def _series(
    axes: Axes, look: Look, quantity: Quantity, points: Sequence[tuple[float, Estimate]], faint: bool
) -> tuple[float, float]:
    """Draw one platform's line with its intervals, and return its right end."""
    x = [rate for rate, _ in points]
    y = [estimate.value * quantity.scale for _, estimate in points]
    down = [(estimate.value - estimate.low) * quantity.scale for _, estimate in points]
    up = [(estimate.high - estimate.value) * quantity.scale for _, estimate in points]
    axes.errorbar(
        x, y, yerr=[down, up], fmt=look.marker, linestyle=look.line, color=look.colour, markerfacecolor=look.face,
        markersize=4 if faint else 5.5, linewidth=1.0 if faint else 1.7, elinewidth=1, capsize=2.5,
        alpha=0.65 if faint else 1.0,
    )  # fmt: skip
    return x[-1], y[-1]
