"""Puts fleets and planned hosts into words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from testbed.fleet.capacity import Copies
from testbed.fleet.draws import Interval
from testbed.fleet.simulate import Hosted, Outcome, Pair
from testbed.fleet.study import Fleet
from testbed.footprints import Footprint
from testbed.history import PastFigure

if TYPE_CHECKING:
    from reports.fleets.data import Step

# What a published figure is of, in words.
QUANTITIES = {
    "utilisation": "use of CPU, %",
    "memory": "use of memory, %",
    "comatose": "comatose servers, %",
    "below_half": "use less than half of what they request, %",
    "concentration": "resources that 1 % of jobs use, %",
    "servers_per_host": "machines on a host",
}
CHECKS = {"read": "read there", "quoted": "quoted elsewhere", "secondary": "from a secondary source"}
_KIND = "95 % interval "
_VERDICTS = {
    "agrees": "the model agrees with it",
    "capped": "the ramp's own limit ended it before",
    "too many": "the model says too many: the service level breaks before memory or CPU is used up",
    "too few": "the model says too few",
}


def show_count(value: float) -> str:
    """Return a number of things, in groups of three digits."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def show_hosts(interval: Interval, kind: str = "") -> str:
    """Return a number of machines with what it may be; ``kind`` goes before an interval of 95 %."""
    return _with_spread(interval, show_count, kind)


def show_ratio(pair: Pair, kind: str = "") -> str:
    """Return how many times as many hosts, with what it may be."""
    return _with_spread(pair.ratio, lambda value: f"{value:.2f}", kind)


def _with_spread(interval: Interval, show: Callable[[float], str], kind: str) -> str:
    """Return a figure with its interval or range, in brackets; alone where the footprints say nothing of either."""
    if interval.low is None or interval.high is None:
        return show(interval.value) + (f" (no interval: {interval.why})" if interval.why else "")
    before = kind if interval.is_interval else "range of few trials "
    return f"{show(interval.value)} ({before}{show(interval.low)}–{show(interval.high)})"


def show_past(figure: PastFigure) -> str:
    """Return a published figure, or its range."""
    if figure.low == figure.high:
        return f"{figure.low:g}"
    return f"above {figure.low:g}" if figure.high == 100 else f"{figure.low:g}–{figure.high:g}"


def find_pair(outcome: Outcome, platform: str) -> Pair | None:
    """Return how a platform stands to the base; None for the base itself."""
    return next((one for one in outcome.pairs if one.platform == platform), None)


def find_base(outcome: Outcome) -> Hosted:
    """Return the platform that the others are compared with."""
    return next(one for one in outcome.hosted if one.platform == outcome.base)


def conclude(outcome: Outcome) -> str:
    """Return what becomes of a fleet in a sentence or two, with intervals; an emulated machine concludes nothing."""
    base = find_base(outcome)
    sentence = (
        f"{show_count(outcome.servers)} servers at {outcome.utilisation:.1%} of their processors fit on"
        f" {show_hosts(base.hosts, _KIND)} hosts as {base.label} (no packing needs fewer than {base.bound.hosts};"
        f" {base.bound.binds} binds), which then run at {base.utilisation:.0%}"
    )
    parts = [sentence]
    for pair in outcome.pairs:
        one = next(each for each in outcome.hosted if each.platform == pair.platform)
        if pair.emulated:
            parts.append(
                f"as {one.label} on {show_hosts(one.hosts, _KIND)}, which says nothing of hardware virtualisation"
            )
        else:
            parts.append(f"as {one.label} on {show_hosts(one.hosts, _KIND)}: {show_ratio(pair, _KIND)} times as many")
    return "; ".join(parts) + "."


def list_notes(footprints: Sequence[Footprint], instruction_time: bool) -> list[str]:
    """Return what must be known of the footprints before a figure is used."""
    notes = [
        f"{one.label}: too few trials for an interval of {', '.join(one.without_interval)}; see bench --trials"
        for one in footprints
        if one.without_interval
    ]
    notes += [
        f"{one.label}: measured at one rate only, so an idle copy's CPU is within the CPU time per request"
        for one in footprints
        if one.cpu_idle is None
    ]
    notes += [
        f"{one.label}: emulated; its figures say what the emulator takes, and nothing of hardware virtualisation"
        for one in footprints
        if one.emulated
    ]
    if instruction_time:
        notes.append(
            "the run's seconds count instructions: CPU time is how much work a request is, not how long it takes"
        )
    return notes


def describe_left_out(outcome: Outcome) -> list[str]:
    """Return which emulated platforms a fleet does not fit on, a sentence each."""
    return [f"{label} is left out: {why}" for label, why in outcome.left_out]


def describe_redrawn(fleet: Fleet) -> list[str]:
    """Return how much a fleet's draw matters, a sentence each."""
    return [
        f"{one.platform}: {min(one.hosts)} to {max(one.hosts)} hosts over {len(one.hosts)} draws of the fleet"
        for one in fleet.redrawn
    ]


def describe_compaction(fleet: Fleet) -> list[str]:
    """Return how far cells can be compacted, a sentence each."""
    return [
        f"{platform}: a cell of {show_count(one.servers)} servers needs {one.hosts} hosts in nine of ten orders of"
        f" arrival ({one.each[0]} to {one.each[-1]} of {len(one.each)})"
        for platform, one in fleet.compaction
    ]


def describe_further(fleet: Fleet) -> list[str]:
    """Return all that is said of a fleet beside its tables."""
    return [*describe_left_out(fleet.outcome), *describe_redrawn(fleet), *describe_compaction(fleet)]


def describe_copies(copies: Copies) -> str:
    """Return a planned platform in a sentence."""
    others = ", ".join(f"{name} {show_count(count)}" for name, count in copies.by.items() if name != copies.binds)
    sentence = (
        f"{copies.label}: {show_hosts(copies.copies, _KIND)} copies, limited by {copies.binds} ({others});"
        f" CPU {copies.utilisation:.0%}, memory {copies.memory:.0%} in use"
    )
    return sentence + (", emulated" if copies.emulated and "emulated" not in copies.label else "")


def describe_check(copies: Copies) -> str:
    """Return the model beside the run's own ramps, "" where there are none."""
    check = copies.check
    if check is None:
        return ""
    measured = sorted(check.measured)
    shown = f"{measured[0]}" if measured[0] == measured[-1] else f"{measured[0]} to {measured[-1]}"
    return (
        f"{copies.label}: on the run's own host the model says {check.model} copies, its ramps ended with {shown}:"
        f" {_VERDICTS[check.verdict]}"
    )


def advise_measuring(scenario: str, copies: Sequence[Copies]) -> list[str]:
    """Return the commands that hold the service level to what is planned, where such a host is at hand."""
    steps = ((one.platform, count_to_measure(one)) for one in copies)
    return [
        f"./invoke bench --scenario {scenario} --platforms {platform} --measures density"
        f" --steps {','.join(map(str, counts))}"
        for platform, counts in steps
    ]


def count_to_measure(copies: Copies) -> tuple[int, ...]:
    """Return with how many copies to look at the service level: half of those that are planned, and all."""
    planned = int(copies.copies.value)
    return tuple(sorted({max(1, planned // 2), planned}))


def describe_step(step: Step) -> str:
    """Return what was measured with so many copies."""
    count = f"{step.label}: with {step.copies} cop{'y' if step.copies == 1 else 'ies'}"
    said = {
        "held": "the service level held",
        "undecided": "it cannot be told whether the service level held",
        "broke": "the service level broke",
    }.get(step.verdict, "not reached")
    return f"{count} {said}{f' ({step.ended})' if step.ended else ''}: {step.run}"
