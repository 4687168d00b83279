"""Shows where a copy's memory goes: a bar a platform, in a few colours, and a table with every part."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.patches import Rectangle

from reports.drawing import INK, MUTED, draw_axes, wrap_label
from reports.figures import Picture
from reports.quantities import MEBIBYTE, Quantity
from testbed.analysis import EMULATOR_PARTS, PARTS, Platform, Run, estimate_memory_parts, list_compared
from testbed.statistics import Estimate

_OTHER = "merged, or unattributed"
# What the bar distinguishes, with its colour: parts of a kind are one. Colours as in reports.drawing.
_GROUPS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "application": ("#0072b2", ("application", "files")),
    "guest: page cache": ("#56b4e9", ("guest_cache",)),
    "guest: kernel": ("#009e73", ("guest_kernel",)),
    "guest: RAM, not broken down": ("#8a7fb0", ("guest_ram",)),
    "guest: free, but not returned": (MUTED, ("guest_free",)),
    "QEMU": ("#d55e00", EMULATOR_PARTS),
    "host: page cache, kernel": ("#cc79a7", ("host_cache", "host_kernel")),
    _OTHER: ("#d9dee4", ("unexplained", "absent", "merged")),
}
# Narrower than this part of the figure there is no room for a number.
_LEAST_SHARE = 0.07


def describe_part(name: str) -> Quantity:
    """Return a part of a platform's memory as it is shown."""
    return Quantity(PARTS.get(name, name), "MiB", MEBIBYTE, most_decimals=1)


def select_measured(run: Run) -> dict[Platform, dict[str, Estimate]]:
    """Return the parts of the platforms that have any, when one of them is a virtual machine."""
    compared = list_compared(run, "density")
    by_platform = {one: parts for one in compared if (parts := estimate_memory_parts(run, one.name))}
    return by_platform if any(set(parts) & set(EMULATOR_PARTS) for parts in by_platform.values()) else {}


def group_parts(parts: Mapping[str, Estimate]) -> dict[str, float]:
    """Return MiB by the groups of the bar; those that are empty are left out. What KSM has merged is negative."""
    sums = {
        group: sum(parts[name].value for name in names if name in parts) * MEBIBYTE
        for group, (_, names) in _GROUPS.items()
    }
    return {group: size for group, size in sums.items() if size}


def draw_pictures(run: Run) -> list[Picture]:
    """Draw the bars, one below the other; none without a virtual machine whose memory was broken down."""
    by_platform = select_measured(run)
    if not by_platform:
        return []
    svg, described = list[str](), []
    bars = {one: group_parts(parts) for one, parts in by_platform.items()}
    widest = max(sum(size for size in bar.values() if size > 0) for bar in bars.values())
    used = [group for group in _GROUPS if any(group in bar for bar in bars.values())]
    with draw_axes(1.5 + 0.55 * len(bars), svg) as axes:
        for row, (one, bar) in enumerate(bars.items()):
            ahead, behind = 0.0, 0.0
            for group, size in bar.items():
                left = ahead if size > 0 else behind
                axes.barh(row, size, left=left, height=0.6, color=_GROUPS[group][0], edgecolor="white", linewidth=0.8)
                if size > widest * _LEAST_SHARE:
                    colour = INK if group == _OTHER else "white"
                    axes.text(left + size / 2, row, f"{size:.0f}", ha="center", va="center", color=colour, fontsize=9)
                ahead, behind = ahead + max(size, 0), behind + min(size, 0)
            total = f"{ahead + behind:.0f} MiB"
            axes.text(ahead + widest * 0.015, row, total, va="center", color=INK, fontsize=9)
            described.append(f"{one.label} {total}: {', '.join(f'{group} {size:.0f}' for group, size in bar.items())}")
        axes.set_yticks(range(len(bars)), [wrap_label(one.label) for one in bars])
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_xlim(right=widest * 1.15)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("MiB of a copy")
        axes.set_title("Where a copy's memory goes")
        handles = [Rectangle((0, 0), 1, 1, color=_GROUPS[group][0]) for group in used]
        axes.legend(
            handles, used, loc="upper center", bbox_to_anchor=(0.45, -0.38 / len(bars) - 0.12), ncols=3, frameon=False,
            fontsize=8.5, handlelength=1.0, handleheight=1.0, columnspacing=1.2,
        )  # fmt: skip
    return [
        Picture(
            svg[0],
            f"Memory of a copy of the application by what it is used for, in MiB. {'; '.join(described)}.",
            "Mean of the copies that ran at the end of the ramp. A guest's RAM is broken down by the guest, the rest by"
            " QEMU's mappings and its cgroup.",
        )
    ]
