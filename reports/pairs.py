"""Tells what was measured side by side: the run's noise floor, and the two of a duet."""

from __future__ import annotations

from collections.abc import Sequence

from reports.comparisons import describe_verdict, title_of
from testbed.analysis import Run
from testbed.comparisons import Headline
from testbed.pairs import NoiseFloor, compare_duet, list_duets, list_headlines, list_noise_floors


def describe(run: Run) -> list[str]:
    """Return a sentence on the noise floor, if the run has one, and one on each duet of two platforms."""
    floors = list_noise_floors(run)
    return [*([_describe_floors(run, floors)] if floors else []), *_describe_duets(run)]


def _describe_floors(run: Run, floors: Sequence[NoiseFloor]) -> str:
    label = next((one.label for one in run.platforms if one.name == floors[0].platform), floors[0].platform)
    parts = [
        f"{_title(one.measure, one.metric, one.rate_per_s or one.mix or None)} {_describe_floor(one)}" for one in floors
    ]
    return f"Noise floor, of {label} measured twice: {'; '.join(parts)}. A difference within it says nothing."


def _describe_floor(floor: NoiseFloor) -> str:
    kind = "" if floor.ratio.is_interval else " (the range of few trials)"
    return f"±{floor.spread:.1%}{kind}"


def _describe_duets(run: Run) -> list[str]:
    labels = {one.name: one.label for one in run.platforms}
    sentences = []
    for base, other in list_duets(run):
        parts = []
        for measure, metric, rate in list_headlines(run):
            compared = compare_duet(run, measure, (base, other), metric, rate)
            if compared is not None:
                verdict = describe_verdict(compared).replace("within blocks", f"{compared.n_base} pairs")
                parts.append(f"{_title(measure, metric, rate)} {verdict}")
        if parts and base in labels and other in labels:
            sentences.append(f"{labels[other]} beside {labels[base]}, at the same time: {'; '.join(parts)}.")
    return sentences


def _title(measure: str, metric: str, level: float | str | None) -> str:
    names = {"memory_cgroup_further": "memory of each further copy", "memory_cgroup_first": "memory of the first copy"}
    headline = Headline(measure, metric, mix=level) if isinstance(level, str) else Headline(measure, metric, level)
    return names.get(metric) or title_of(headline)
