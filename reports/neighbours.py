"""What neighbours did to the application, in words and as rows: the table's, the terminal's and the sentence's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from reports.quantities import SATURATED, Quantity
from testbed.analysis import Platform, Run
from testbed.interference import THROUGHPUT, Interference, describe_shared, estimate_interference
from testbed.published import Mark, read_published
from testbed.statistics import Estimate

# Ratios to the application alone; the latencies from the one that needs most requests on.
RATIOS: Mapping[str, Quantity] = {
    "latency_p50": Quantity("p50", ""),
    "latency_p90": Quantity("p90", ""),
    "latency_p99": Quantity("p99", ""),
    "latency_p99_9": Quantity("p99.9", ""),
    THROUGHPUT: Quantity("throughput", "", most_decimals=2),
}
_TAILS = ("latency_p99_9", "latency_p99", "latency_p90", "latency_p50")
_NOTHING = "nothing answered"
# Less of the requests is no loss of throughput, but what an open load's ends make of it.
_LEAST_LOSS = 0.02


class Effect(Struct, frozen=True):
    """What to say first of a neighbour's effect: in a few words, and what they rest on."""

    text: str
    basis: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.basis})" if self.basis else self.text


def list_measured(run: Run, platforms: Sequence[Platform]) -> dict[str, tuple[Interference, ...]]:
    """Return what neighbours did on each platform that has figures of it, by name."""
    by_platform = {one.name: estimate_interference(run, one.name) for one in platforms}
    return {name: of for name, of in by_platform.items() if of}


def choose_tail(effects: Iterable[Interference]) -> str:
    """Return the highest percentile that most of these have: the others answered too little, or nothing."""
    having = [set(one.ratios) for one in effects]
    counts = {name: sum(name in names for names in having) for name in _TAILS}
    return next((name for name in _TAILS if counts[name] * 2 > len(having)), _TAILS[-1])


def show_ratio(name: str, estimate: Estimate) -> str:
    """Return a ratio to the application alone."""
    return f"x {RATIOS[name].show(estimate.value)}"


def describe_effect(effect: Interference, tail: str) -> Effect:
    """Return what matters most of a neighbour's effect: that the application was lost, answered nothing or less, or
    could not keep up; else how much longer its slow requests took."""
    of = f" of {effect.trials}"
    throughput, slow = effect.ratios.get(THROUGHPUT), effect.ratios.get(tail)
    if effect.survived < effect.trials:
        return Effect("lost", f"in {effect.trials - effect.survived}{of}")
    if throughput is not None and throughput.value < 1 - _LEAST_LOSS:
        if throughput.high == 0:
            return Effect(_NOTHING, f"in {effect.trials}{of}")
        return Effect(f"throughput {show_ratio(THROUGHPUT, throughput)}", RATIOS[THROUGHPUT].qualify(throughput))
    if effect.saturated * 2 > effect.trials or (effect.saturated and slow is None):
        return Effect(SATURATED, f"in {effect.saturated}{of}")
    if slow is None:
        return Effect("–")
    return Effect(f"{RATIOS[tail].title} {show_ratio(tail, slow)}", RATIOS[tail].qualify(slow))


def _weigh(effect: Interference, tail: str) -> tuple[float, float, float]:
    """Return how bad an effect is, to be compared with others: losses, then throughput, then latency."""
    throughput, slow = effect.ratios.get(THROUGHPUT), effect.ratios.get(tail)
    lost = (effect.trials - effect.survived) / max(effect.trials, 1)
    gone = max(0.0, 1 - _LEAST_LOSS - throughput.value) if throughput else 0.0
    return lost, gone, slow.value if slow else 0.0


def describe_platform(effects: Sequence[Interference], tail: str) -> str:
    """Return the worst neighbour of a platform with limits and without, in words."""
    parts = []
    for limited, words in ((True, "with limits"), (False, "without limits")):
        some = [one for one in effects if one.case.limited == limited]
        if some:
            worst = max(some, key=lambda one: _weigh(one, tail))
            parts.append(f"{words} {worst.case.kind}, {describe_effect(worst, tail)}")
    return " and ".join(parts)


def describe_boundary(run: Run, platform: str) -> str:
    """Return what the application and its neighbour share on a platform, in brackets; empty where nobody knows."""
    shared = describe_shared(run, platform)
    return f" (both share {shared})" if shared else ""


def describe_boundaries(run: Run, platforms: Iterable[Platform]) -> str:
    """Return a sentence on what the application and its neighbour share on each platform; empty where nobody knows."""
    parts = [f"on {one.label} {shared}" for one in platforms if (shared := describe_shared(run, one.name))]
    return f"Both share {'; '.join(parts)}." if parts else ""


def describe(run: Run, platforms: Sequence[Platform]) -> str:
    """Return which neighbour was the worst on each platform, a sentence; empty where none was measured."""
    measured = list_measured(run, platforms)
    if not measured:
        return ""
    tail = choose_tail(one for effects in measured.values() for one in effects)
    labels = {one.name: one.label for one in platforms}
    parts = [
        f"{labels[name]}{describe_boundary(run, name)} {described}"
        for name, of in measured.items()
        if (described := describe_platform(of, tail))
    ]
    return f"The worst neighbour, relative to the application alone: {'; '.join(parts)}."


def list_published_beside() -> tuple[Mark, ...]:
    """Return what others have published of applications beside neighbours."""
    return tuple(mark for mark in read_published() if mark.measure == "neighbours")
