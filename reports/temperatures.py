"""Compares like with like: platforms that start at the same temperature.

One that starts warm is set against nothing unless the same kind of platform, started cold, stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from testbed.analysis import TEMPERATURES, Platform, Run, find_cold, list_alone, list_compared

MEASURES = ("start", "density", "utilisation", "work", "consolidation")


def describe_each(run: Run, measure: str, describe: Callable[[Run, Sequence[Platform]], str]) -> str:
    """Describe what may be compared: platforms that start cold with each other, and so on."""
    hardware = [one for one in list_compared(run, measure) if not one.emulated]
    sentences = {
        temperature: sentence
        for temperature in TEMPERATURES
        if (sentence := describe(run, [one for one in hardware if one.temperature == temperature]))
    }
    if set(sentences) <= {"cold"}:
        return sentences.get("cold", "")
    return " ".join(f"{temperature.capitalize()}: {sentence}" for temperature, sentence in sentences.items())


def select_alone(run: Run) -> list[tuple[Platform, list[str]]]:
    """Return the platforms, no emulated ones, that are set against nothing in some measures, and in which."""
    by_measure = {measure: list_alone(run, measure) for measure in MEASURES}
    pairs = [(one, [measure for measure, of in by_measure.items() if one in of]) for one in run.platforms]
    return [(one, measures) for one, measures in pairs if measures and not one.emulated]


def describe_cold(platform: Platform) -> str:
    """Return what a warm platform's figures would have to stand beside."""
    return f"figure of {find_cold(platform.name) or 'its kind'} started cold"


def list_notes(run: Run) -> list[str]:
    """Return which platforms are set against nothing in which measures, and what to do, a sentence each."""
    notes = []
    for one in run.platforms:
        if measures := [measure for measure in MEASURES if one in list_alone(run, measure)]:
            notes.append(
                f"{one.label} starts warm, and is set against nothing in {' and '.join(measures)}: this run has no"
                f" {describe_cold(one)} to stand beside it. Measure both: --platforms {_both(one)}."
            )
    return notes


def _both(platform: Platform) -> str:
    return ",".join(filter(None, (find_cold(platform.name), platform.name)))
