"""The order of all trials, which follows from a seed alone.

A randomised complete block design (R. A. Fisher, The Design of Experiments, 1935, on randomised blocks; for
measurements of computers: Abedi and Brecht, Conducting Repeatable Experiments in Highly Variable Cloud Computing
Environments, ICPE 2017, "randomised multiple interleaved trials"). A block holds every platform once, in shuffled
order, so what the host does over minutes falls on all platforms alike; a round holds a block of every measure, in
shuffled order too. Rounds are drawn one by one, each from the seed and its own number: a longer run has the shorter one
as its beginning, and one that was cut short can be continued.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count

from msgspec import Struct

from testbed.levels import Level, find_level
from testbed.results import Trial

# How often a trial that is void is done again in its block.
MOST_REPEATS = 2
# The level of a measure that has none.
_ONLY: Level = 0.0
# Platforms that are measured at the same time; alone, without a rival.
Group = tuple[str, ...]


class PlannedTrial(Struct, frozen=True):
    """One measure of one platform. Trials and blocks are numbered from 1 through the whole run.

    With ``levels`` it is several trials, one a level in this order, numbered from ``trial`` on: rates of utilisation
    (requests/s), names of cases of neighbours and of mixes of consolidation (testbed.levels).
    ``repeats`` has the number of the trial that each of them is done again for, 0 for none; ``beside`` is the platform
    that runs at the same time, "" for none. A ``warmup`` is on record and not counted.
    """

    trial: int
    block: int
    platform: str
    measure: str
    levels: tuple[Level, ...] = ()
    warmup: bool = False
    repeats: tuple[int, ...] = ()
    beside: str = ""

    @property
    def count(self) -> int:
        """How many trials it is."""
        return len(self.levels) or 1

    def repeats_of(self, index: int) -> int:
        """Return the number of the trial that the ``index``-th is done again for, 0 for none."""
        return self.repeats[index] if index < len(self.repeats) else 0


class Block(Struct, frozen=True):
    """Every group of platforms once, in this order, in one measure. Blocks are numbered from 1 as they are drawn,
    whether or not they are measured; ``round`` counts the blocks of this measure."""

    number: int
    round: int
    measure: str
    groups: tuple[Group, ...]
    levels: tuple[Level, ...] = ()


def draw_rounds(
    groups: Sequence[Group], measures: Sequence[str], levels: Mapping[str, Sequence[Level]], seed: int
) -> Iterator[tuple[Block, ...]]:
    """Yield round after round, without an end. The same arguments always give the same ones.

    The ``levels`` of a measure are shuffled anew in each of its blocks, in the same order for all its platforms.
    """
    number = 0
    for round_number in count(1):
        chance = random.Random(f"{seed}/{round_number}")
        blocks = []
        for measure in chance.sample(tuple(measures), len(measures)):
            number += 1
            of_measure = levels.get(measure, ())
            drawn = tuple(chance.sample(tuple(of_measure), len(of_measure))) if of_measure else ()
            shuffled = chance.sample(tuple(groups), len(groups))
            order = tuple(tuple(chance.sample(group, len(group))) for group in shuffled)
            blocks.append(Block(number, round_number, measure, order, drawn))
        yield tuple(blocks)


def group_by_block(record: Iterable[Trial]) -> dict[int, list[Trial]]:
    """Return the trials of each block, by its number."""
    blocks: dict[int, list[Trial]] = {}
    for trial in record:
        blocks.setdefault(trial.block, []).append(trial)
    return blocks


def list_open(
    block: Block, recorded: Iterable[Trial], first: int, *, warmup: bool = False
) -> tuple[tuple[PlannedTrial, ...], ...]:
    """Return what of a block is still to be done after the trials of it on record, a tuple of what runs at the same
    time each; nothing when the block is complete. Numbers begin at ``first``; what is done again comes last.

    A trial that is void or was interrupted is done again, the first at most ``MOST_REPEATS`` times. Of platforms that
    run at the same time all are, unless one has failed: there is nothing to compare then.
    """
    ended: dict[tuple[str, Level], list[Trial]] = {}
    for trial in recorded:
        ended.setdefault((trial.platform, _level(trial)), []).append(trial)
    open_levels = {
        group: tuple(level for level in block.levels or (_ONLY,) if not _is_complete(group, level, ended))
        for group in block.groups
    }
    planned = []
    for group in sorted(block.groups, key=lambda one: any(platform in one for platform, _ in ended)):
        levels = open_levels[group]
        unit = []
        for platform in group if levels else ():
            before = tuple(ended[platform, level][-1].trial if (platform, level) in ended else 0 for level in levels)
            beside = next((other for other in group if other != platform), "")
            asked = levels if block.levels else ()
            unit.append(PlannedTrial(first, block.number, platform, block.measure, asked, warmup, before, beside))
            first += len(levels)
        planned += [tuple(unit)] if unit else []
    return tuple(planned)


def _level(trial: Trial) -> Level:
    level = find_level(trial)
    return _ONLY if level is None else level


def _is_complete(group: Group, level: Level, ended: Mapping[tuple[str, Level], Sequence[Trial]]) -> bool:
    """Return whether a group has no more to do at a level."""
    trials = [ended.get((platform, level), ()) for platform in group]
    if any(trial.outcome == "failed" for of in trials for trial in of):
        return all(trials)
    return all(
        any(trial.outcome == "ok" for trial in of) or sum(trial.outcome == "void" for trial in of) > MOST_REPEATS
        for of in trials
    )
