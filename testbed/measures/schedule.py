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

from testbed.results import Trial

# How often a trial that is void is done again in its block.
MOST_REPEATS = 2
# The parameters that tell the trials of a measure apart within a block, by measure, and what others are told by.
RATE, CASE = "rate_per_s", "case"
TOLD_BY = {"utilisation": RATE, "neighbours": CASE}
Part = float | str
_WHOLE: Part = 0.0
# Platforms that are measured at the same time; alone, without a rival.
Group = tuple[str, ...]


class PlannedTrial(Struct, frozen=True):
    """One measure of one platform. Trials and blocks are numbered from 1 through the whole run.

    With ``rates_per_s`` (utilisation) it is several trials, one a rate in this order, numbered from ``trial`` on; with
    ``cases`` (neighbours) one a case.
    ``repeats`` has the number of the trial that each of them is done again for, 0 for none; ``beside`` is the platform
    that runs at the same time, "" for none. A ``warmup`` is on record and not counted.
    """

    trial: int
    block: int
    platform: str
    measure: str
    rates_per_s: tuple[float, ...] = ()
    warmup: bool = False
    repeats: tuple[int, ...] = ()
    beside: str = ""
    cases: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many trials it is."""
        return len(self.rates_per_s) or len(self.cases) or 1

    def list_parameters(self, index: int) -> dict[str, float | str]:
        """Return what tells the ``index``-th trial from the others of it."""
        if self.rates_per_s:
            return {RATE: self.rates_per_s[index]}
        return {CASE: self.cases[index]} if self.cases else {}

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
    rates_per_s: tuple[float, ...] = ()
    cases: tuple[str, ...] = ()


def draw_rounds(
    groups: Sequence[Group],
    measures: Sequence[str],
    rates_per_s: Sequence[float],
    seed: int,
    cases: Sequence[str] = (),
) -> Iterator[tuple[Block, ...]]:
    """Yield round after round, without an end. The same arguments always give the same ones.

    Rates are shuffled anew in each block of utilisation, and cases in each of neighbours, in the same order for all its
    platforms.
    """
    number = 0
    for round_number in count(1):
        chance = random.Random(f"{seed}/{round_number}")
        blocks = []
        for measure in chance.sample(tuple(measures), len(measures)):
            number += 1
            rates = tuple(chance.sample(tuple(rates_per_s), len(rates_per_s))) if measure == "utilisation" else ()
            beside = tuple(chance.sample(tuple(cases), len(cases))) if measure == "neighbours" else ()
            shuffled = chance.sample(tuple(groups), len(groups))
            order = tuple(tuple(chance.sample(group, len(group))) for group in shuffled)
            blocks.append(Block(number, round_number, measure, order, rates, beside))
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
    ended: dict[tuple[str, Part], list[Trial]] = {}
    for trial in recorded:
        ended.setdefault((trial.platform, _find_part(trial)), []).append(trial)
    whole: tuple[Part, ...] = block.rates_per_s or block.cases or (_WHOLE,)
    open_parts = {
        group: tuple(part for part in whole if not _is_complete(group, part, ended)) for group in block.groups
    }
    planned = []
    for group in sorted(block.groups, key=lambda one: any(platform in one for platform, _ in ended)):
        parts = open_parts[group]
        unit = []
        for platform in group if parts else ():
            before = tuple(ended[platform, part][-1].trial if (platform, part) in ended else 0 for part in parts)
            beside = next((other for other in group if other != platform), "")
            rates = tuple(part for part in parts if not isinstance(part, str)) if block.rates_per_s else ()
            cases = tuple(part for part in parts if isinstance(part, str))
            unit.append(
                PlannedTrial(first, block.number, platform, block.measure, rates, warmup, before, beside, cases)
            )
            first += len(parts)
        planned += [tuple(unit)] if unit else []
    return tuple(planned)


def _find_part(trial: Trial) -> Part:
    """Return what tells a trial of a block from the others on the same platform: a rate, a case, or nothing."""
    part = trial.parameters.get(TOLD_BY.get(trial.measure, ""), _WHOLE)
    return float(part) if isinstance(part, int | float) else part


def _is_complete(group: Group, part: Part, ended: Mapping[tuple[str, Part], Sequence[Trial]]) -> bool:
    """Return whether a group has no more to do of a part of its block."""
    trials = [ended.get((platform, part), ()) for platform in group]
    if any(trial.outcome == "failed" for of in trials for trial in of):
        return all(trials)
    return all(
        any(trial.outcome == "ok" for trial in of) or sum(trial.outcome == "void" for trial in of) > MOST_REPEATS
        for of in trials
    )
