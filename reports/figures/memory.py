"""Where a copy's memory is, at the end of the ramps part by part, and at their steps; platforms on the same axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from reports.figures.marks import Picture, bar, element, join, segment
from reports.figures.matrix import Cell, Column, Matrix, Row, draw_matrix
from reports.figures.scales import Scale
from reports.quantities import MEBIBYTE, Quantity
from reports.thinning import pick_evenly
from testbed.analysis import Platform, Run, list_compared
from testbed.ramps import EMULATOR_PARTS, PARTS, PartsOfStep, estimate_memory_parts, select_parts
from testbed.statistics import Estimate

# What the figure distinguishes, with its hue: parts of a kind are one.
_GROUPS: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "application": (0, ("application", "files")),
    "guest: page cache": (6, ("guest_cache",)),
    "guest: kernel": (2, ("guest_kernel",)),
    "guest: RAM, not broken down": (5, ("guest_ram",)),
    "guest: free, but not returned": (4, ("guest_free",)),
    "QEMU": (1, EMULATOR_PARTS),
    "host: page cache, kernel": (3, ("host_cache", "host_kernel")),
    "merged, or unattributed": (7, ("unexplained", "absent", "merged")),
}
_PLATFORMS_ABREAST, _MOST_COUNTS = 4, 8
_BAR_PX = 22


def describe_part(name: str) -> Quantity:
    """Return a part of a platform's memory as it is shown."""
    return Quantity(PARTS.get(name, name), "MiB", MEBIBYTE, most_decimals=1)


def select_measured(run: Run) -> dict[Platform, dict[str, Estimate]]:
    """Return the parts of the platforms that have any, when one of them is a virtual machine."""
    compared = list_compared(run, "density")
    by_platform = {one: parts for one in compared if (parts := estimate_memory_parts(run, one.name))}
    return by_platform if any(set(parts) & set(EMULATOR_PARTS) for parts in by_platform.values()) else {}


def group_parts(parts: Mapping[str, Estimate]) -> dict[str, float]:
    """Return MiB by the groups of the figure; those that are empty are left out. What KSM has merged is negative."""
    sums = {
        group: sum(parts[name].value for name in names if name in parts) * MEBIBYTE
        for group, (_, names) in _GROUPS.items()
    }
    return {group: size for group, size in sums.items() if size}


def draw_memory(run: Run) -> list[Picture]:
    """Draw where a copy's memory goes, as far as the run's ramps broke it down."""
    return [*_draw_ends(run), *_draw_steps(run)]


def _draw_ends(run: Run) -> list[Picture]:
    """Draw the parts at the end of the ramps; none without a virtual machine whose memory was broken down."""
    bars = {one: group_parts(parts) for one, parts in select_measured(run).items()}
    if not bars:
        return []
    used = [group for group in _GROUPS if any(group in bar for bar in bars.values())]
    ends = [edge for parts in bars.values() for edge in (*_running(parts).values(), (0.0, sum(parts.values())))]
    low, high = (choose(edge for pair in ends for edge in pair) for choose in (min, max))
    scale = Scale("linear", min(low, 0.0), max(high, 1.0) * 1.02)
    drawn, platforms = [], list(bars)
    rows = [*(Row(group) for group in used), Row("sum")]
    for first in range(0, len(platforms), _PLATFORMS_ABREAST):
        abreast = platforms[first : first + _PLATFORMS_ABREAST]
        cells = {}
        for at, one in enumerate(abreast):
            running = _running(bars[one])
            for row, group in enumerate(used):
                if group in running:
                    cells[row, at] = _cell(*running[group], bars[one][group], scale, _GROUPS[group][0])
            total = sum(bars[one].values())
            cells[len(used), at] = _sum_cell(total, scale)
        columns = [Column(one.label, "", scale, ticks=4) for one in abreast]
        drawn.append(draw_matrix(Matrix(columns, rows, cells, _BAR_PX, inline=True, class_="memory")))
    shown = [
        f"{one.label} {sum(parts.values()):.0f} MiB: "
        + ", ".join(f"{group} {size:.0f}" for group, size in parts.items())
        for one, parts in bars.items()
    ]
    alt = f"Memory of a copy of the application by what it is used for, in MiB. {'; '.join(shown)}."
    caption = (
        "MiB, the mean of the copies that ran at the end of the ramp; each part begins where the one above it ends. A"
        " guest's RAM is broken down by the guest, the rest by QEMU's mappings and its cgroup."
    )
    return [Picture(join(*drawn), "Where a copy's memory goes", alt, caption, wide=True)]


def _running(parts: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Return where each part begins and ends when they are laid end to end."""
    running, at = {}, 0.0
    for group, size in parts.items():
        running[group] = (at, at + size)
        at += size
    return running


def _cell(begin: float, end: float, size: float, scale: Scale, hue: int) -> Cell:
    drawn = bar(scale.place(begin), scale.place(end), 3, _BAR_PX - 6, f"bar c{hue}", hue)
    return Cell(drawn, _show(size))


def _sum_cell(total: float, scale: Scale) -> Cell:
    zero, end = scale.place(0.0), scale.place(total)
    outline: Markup = bar(zero, end, 7, _BAR_PX - 14, "bar sum")
    return Cell(join(outline, segment(end, 2, end, _BAR_PX - 2, "median sum")), _show(total))


def _show(size: float) -> str:
    return Quantity("", "MiB", most_decimals=1).show(size)


def _draw_steps(run: Run) -> list[Picture]:
    """Draw the parts laid end to end, a row for each number of copies; none where only one number was looked at."""
    by_platform = {one: parts for one in list_compared(run, "density") if (parts := select_parts(run, one.name))}
    counts = sorted({step.applications for steps in by_platform.values() for step in steps})
    if len(counts) < 2:
        return []
    counts = list(pick_evenly(counts, _MOST_COUNTS))
    grouped = {one: {step.applications: step for step in steps} for one, steps in by_platform.items()}
    shown = [step for steps in grouped.values() for count, step in steps.items() if count in counts]
    used = [group for group in _GROUPS if any(group in group_parts(step.parts) for step in shown)]
    longest = [sum(size for size in group_parts(step.parts).values() if size > 0) for step in shown]
    scale = Scale("linear", 0.0, max((*longest, *(step.total.high * MEBIBYTE for step in shown), 1.0)) * 1.02)
    rows = [Row(f"{count} {'copy' if count == 1 else 'copies'}") for count in counts]
    drawn, platforms = [_draw_key(used)], list(grouped)
    for first in range(0, len(platforms), _PLATFORMS_ABREAST):
        abreast = platforms[first : first + _PLATFORMS_ABREAST]
        cells = {
            (row, at): _draw_stack(grouped[one][count], scale)
            for at, one in enumerate(abreast)
            for row, count in enumerate(counts)
            if count in grouped[one]
        }
        columns = [Column(one.label, "MiB of a copy", scale, ticks=4) for one in abreast]
        drawn.append(draw_matrix(Matrix(columns, rows, cells, _BAR_PX, inline=True, class_="memory")))
    said = [f"{one.label} {_say_totals(steps)}" for one, steps in by_platform.items()]
    most = max(step.total.n for step in shown)
    rests = f", median of at most {most} ramps with its 95 % interval or their range" if most > 1 else ""
    caption = (
        f"Mean of the copies that ran, by what it is used for; line: the sum{rests}. What copies share is divided among"
        " more of them, the more there are."
    )
    alt = f"Memory of a copy against how many run, in MiB: {'; '.join(said)}."
    return [Picture(join(*drawn), "Memory of a copy beside others", alt, caption, wide=True)]


def _say_totals(steps: Sequence[PartsOfStep]) -> str:
    return ", ".join(f"{_show(step.total.value * MEBIBYTE)} with {step.applications}" for step in steps)


def _draw_stack(step: PartsOfStep, scale: Scale) -> Cell:
    """Return a bar of what takes memory, and a line at the sum, from which what was merged is taken off."""
    shapes, at = [], 0.0
    for group, size in group_parts(step.parts).items():
        if size > 0:
            hue = _GROUPS[group][0]
            shapes.append(bar(scale.place(at), scale.place(at + size), 4, _BAR_PX - 8, f"bar c{hue}", hue))
            at += size
    low_mib, total_mib, high_mib = (edge * MEBIBYTE for edge in (step.total.low, step.total.value, step.total.high))
    low, total, high = map(scale.place, (low_mib, total_mib, high_mib))
    shapes.append(segment(total, 1, total, _BAR_PX - 1, "median sum"))
    if high > low:
        shapes.append(segment(low, _BAR_PX / 2, high, _BAR_PX / 2, "median sum"))
    span = Quantity("", "MiB").span(low_mib, high_mib, total_mib) if step.total.n > 1 else ""
    return Cell(join(*shapes), _show(total_mib), span)


def _draw_key(groups: Sequence[str]) -> Markup:
    """Return which hatch is which group."""
    items = [
        element(
            "li", element("svg", bar(0, 1, 0.5, 11, f"bar c{hue}", hue), class_="swatch", aria_hidden="true"), group
        )
        for group in groups
        for hue, _ in [_GROUPS[group]]
    ]
    return element("ul", *items, class_="key shown")
