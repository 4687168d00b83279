"""The order of all trials, decided from a seed before anything runs.

A randomised complete block design (R. A. Fisher, The Design of Experiments, 1935, on randomised blocks; for
measurements of computers: Abedi and Brecht, Conducting Repeatable Experiments in Highly Variable Cloud Computing
Environments, ICPE 2017, "randomised multiple interleaved trials"). A block holds every platform once, in shuffled
order, so what the host does over minutes falls on all platforms alike; blocks of the measures alternate, so it
falls on all measures alike, too.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from msgspec import Struct

# Density and utilisation fill a block with many seconds of load, so there is one for every three starts.
STARTS_PER_BLOCK = 3


class PlannedTrial(Struct, frozen=True):
    """One measure of one platform. Trials and blocks are numbered from 1 through the whole run.

    With ``rates_per_s`` (utilisation) it is several trials, one a rate in this order, numbered from ``trial`` on.
    """

    trial: int
    block: int
    platform: str
    measure: str
    rates_per_s: tuple[float, ...] = ()


def blocks_of(measure: str, trials: int) -> int:
    """Return how many blocks a measure gets when ``trials`` starts were asked for."""
    return trials if measure in ("start", "work") else max(1, trials // STARTS_PER_BLOCK)


def _interleave(measures: Sequence[str], trials: int, chance: random.Random) -> list[str]:
    """Return the measure of each block: every measure's blocks spread evenly over the run, each at random in its
    part."""
    positions: list[tuple[float, str]] = []
    for measure in measures:
        count = blocks_of(measure, trials)
        positions += [((index + chance.random()) / count, measure) for index in range(count)]
    return [measure for _, measure in sorted(positions)]


def plan_trials(
    platforms: Sequence[str], measures: Sequence[str], trials: int, rates_per_s: Sequence[float], seed: int
) -> tuple[PlannedTrial, ...]:
    """Return all trials in order. The same arguments always give the same schedule.

    ``trials`` is the number of starts on each platform. Rates are shuffled anew in each block of utilisation, in
    the same order for all its platforms.
    """
    chance = random.Random(seed)
    planned: list[PlannedTrial] = []
    number = 1
    for block, measure in enumerate(_interleave(measures, trials, chance), 1):
        rates = tuple(chance.sample(tuple(rates_per_s), len(rates_per_s))) if measure == "utilisation" else ()
        for platform in chance.sample(tuple(platforms), len(platforms)):
            planned.append(PlannedTrial(number, block, platform, measure, rates))
            number += len(rates) or 1
    return tuple(planned)
