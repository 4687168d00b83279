"""The course of a run: block after block, each complete, until every measure has enough of them or time is up.

It reads what is on record and goes on from there, so a run that begins and one that is resumed take the same way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from msgspec import Struct

from testbed.levels import Level
from testbed.measures.design import Design, judge, predict_blocks
from testbed.measures.pace import Pace, Step, describe_time, show_seconds
from testbed.measures.schedule import Block, Group, PlannedTrial, draw_rounds, group_by_block, list_open
from testbed.measures.trials import make_unmeasured
from testbed.results import RunFolder, Trial
from testbed.statistics import FEWEST

# Does what is planned for the same time, records its trials, and returns them.
Perform = Callable[[tuple[PlannedTrial, ...]], Sequence[Trial]]
# A platform that failed in its first blocks is given up: each further one could take its whole timeout.
BLOCKS_TO_GIVE_UP = 2


class Plan(Struct, frozen=True):
    """What is measured, in which order, and how much of it. ``levels`` are by measure, of those that have any."""

    groups: tuple[Group, ...]
    measures: tuple[str, ...]
    levels: Mapping[str, tuple[Level, ...]]
    seed: int
    design: Design

    def count_levels(self, measure: str) -> int:
        """Return how many trials of a platform a block of the measure has."""
        return len(self.levels.get(measure, ())) or 1

    def warms_up(self, block: Block) -> bool:
        """Return whether a block's trials are warm-ups."""
        return block.round <= self.design.warmups


class Outlook(Struct, frozen=True):
    """What is left to do: the steps, how many trials they are, and whether that is certain."""

    steps: tuple[Step, ...]
    certain: bool

    @property
    def trials(self) -> int:
        return sum(step.count * len(step.group) for step in self.steps)


def count_blocks(plan: Plan, record: Sequence[Trial]) -> dict[str, int]:
    """Return how many blocks on record count, complete or not, by measure."""
    blocks = {one: {trial.block for trial in record if trial.measure == one} for one in plan.measures}
    warmups = {trial.block for trial in record if trial.warmup}
    return {measure: len(numbers - warmups) for measure, numbers in blocks.items()}


def look_ahead(plan: Plan, record: Sequence[Trial]) -> Outlook:
    """Return what is left of a run after the trials on record, as far as can be told."""
    done = count_blocks(plan, record)
    wanted = {one: predict_blocks(plan.design, one, done[one], record) + plan.design.warmups for one in plan.measures}
    longest = max(wanted.values(), default=0)
    recorded = group_by_block(record)
    steps = [
        Step(block.measure, tuple(one.platform for one in unit), unit[0].count)
        for blocks in islice(draw_rounds(plan.groups, plan.measures, plan.levels, plan.seed), longest)
        for block in blocks
        if block.round <= wanted[block.measure]
        for unit in list_open(block, recorded.get(block.number, ()), 1)
    ]
    return Outlook(tuple(steps), not plan.design.is_adaptive)


def find_reason_to_give_up(trials: Iterable[Trial], platform: str) -> str:
    """Return why a platform is not tried any more; empty as long as it is."""
    tried = [trial for trial in trials if trial.platform == platform]
    failed_blocks = {trial.block for trial in tried if trial.outcome == "failed"}
    if len(failed_blocks) < BLOCKS_TO_GIVE_UP or any(trial.outcome != "failed" for trial in tried):
        return ""
    return f"not tried: {platform} failed in its first {BLOCKS_TO_GIVE_UP} blocks"


class Course:
    """A run under way. ``spent_s`` is what earlier sessions of the run have used of its budget; ``labels`` are those of
    the platforms. ``ended`` says why there is no more of a measure."""

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        perform: Perform,
        pace: Pace,
        labels: Mapping[str, str],
        progress: Callable[[str], None],
        spent_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._record = list(folder.trials())
        self._perform = perform
        self._pace = pace
        self._labels = labels
        self._progress = progress
        self._clock = clock
        self._began_s = clock() - spent_s
        self.ended: dict[str, str] = {}
        self.unfinished: int | None = None

    @property
    def spent_s(self) -> float:
        """The seconds that the run has measured, earlier sessions included."""
        return self._clock() - self._began_s

    def run(self) -> None:
        """Measure until there is enough of everything. ``unfinished`` is the number of the block under way."""
        plan = self._plan
        for blocks in draw_rounds(plan.groups, plan.measures, plan.levels, plan.seed):
            for block in blocks:
                is_begun = any(trial.block == block.number for trial in self._record)
                if not is_begun and block.measure in self.ended:
                    continue
                if not is_begun and (reason := self._find_end(block)):
                    self._progress(f"{block.measure}: {reason}")
                    self.ended[block.measure] = reason
                    continue
                self.unfinished = block.number
                self._measure(block)
                self.unfinished = None
            if len(self.ended) == len(plan.measures):
                return

    def _find_end(self, block: Block) -> str:
        """Return why a block that has not begun is not to be, nor any further one of its measure; empty if it is."""
        design, blocks = self._plan.design, count_blocks(self._plan, self._record)[block.measure]
        if block.round > design.warmups and (reason := judge(design, block.measure, blocks, self._record)):
            return reason
        levels = self._plan.count_levels(block.measure)
        block_s = self._pace.expect_s([Step(block.measure, group, levels) for group in block.groups])
        so_many = f"{blocks} block{'' if blocks == 1 else 's'}"
        # The first block of a run begins, whatever it is guessed to take.
        if design.budget_s is not None and self._record and self.spent_s + block_s > design.budget_s:
            return f"{so_many} within the budget of {show_seconds(design.budget_s)}"
        is_more = blocks >= design.least[block.measure]
        if design.more_for_s is not None and is_more and self.spent_s + block_s > design.more_for_s:
            return f"{so_many}: none beyond the least number would end within {show_seconds(design.more_for_s)}"
        return ""

    def _measure(self, block: Block) -> None:
        """Complete a block: what of it is not on record yet, and again what was void."""
        warmup = self._plan.warms_up(block)
        recorded = [trial for trial in self._record if trial.block == block.number]
        while units := list_open(block, recorded, self._next_number(), warmup=warmup):
            trials = self._do(units[0])
            self._record += trials
            recorded += trials

    def _next_number(self) -> int:
        return 1 + max((trial.trial for trial in self._record), default=0)

    def _do(self, unit: tuple[PlannedTrial, ...]) -> Sequence[Trial]:
        self._progress(self._announce(unit, look_ahead(self._plan, self._record)))
        for one in unit:
            if reason := find_reason_to_give_up(self._record, one.platform):
                self._progress(f"  {reason}")
                return self._skip(unit, reason)
        self._pace.begin(Step(unit[0].measure, tuple(one.platform for one in unit), unit[0].count))
        trials = self._perform(unit)
        self._pace.end()
        if not trials:
            raise AssertionError(f"nothing was recorded of {unit}")
        return trials

    def _skip(self, unit: tuple[PlannedTrial, ...], reason: str) -> Sequence[Trial]:
        """Record what is planned as failed without having been tried."""
        trials = [make_unmeasured(one, index, "failed", reason) for one in unit for index in range(one.count)]
        for trial in trials:
            self._folder.append(trial)
        return trials

    def _announce(self, unit: tuple[PlannedTrial, ...], outlook: Outlook) -> str:
        """Return ``trials 3 to 5 of 12: utilisation on container, about 5 min left``."""
        first, last = unit[0].trial, unit[-1].trial + unit[-1].count - 1
        number = f"trial {first}" if first == last else f"trials {first} to {last}"
        total = f"{'' if outlook.certain else 'about '}{first - 1 + outlook.trials}"
        where = " beside ".join(self._labels.get(one.platform, one.platform) for one in unit)
        again = [str(of) for one in unit for of in one.repeats if of]
        notes = [
            *(["a warm-up"] if unit[0].warmup else []),
            *([f"again for {', '.join(again)}"] if again else []),
            f"{describe_time(self._pace.expect_s(outlook.steps))} left",
        ]
        return f"{number} of {total}: {unit[0].measure} on {where}, {', '.join(notes)}"


def describe_plan(plan: Plan, outlook: Outlook, pace: Pace) -> tuple[str, ...]:
    """Return what a run will do and how long that will take, a sentence each, before it begins."""
    design = plan.design
    counts = ", ".join(f"{design.least[one]} of {one}" for one in plan.measures)
    warmups = f", after {design.warmups} of each as a warm-up" if design.warmups else ""
    expected = describe_time(pace.expect_s(outlook.steps))
    sentences = [f"blocks: {'at least ' if design.is_adaptive else ''}{counts}{warmups}; {expected} expected"]
    limit_s = design.more_for_s if design.budget_s is None else design.budget_s
    limit = "" if limit_s is None else f"no block that would not end within {show_seconds(limit_s)}"
    if design.is_adaptive:
        most = ", ".join(f"{design.most[one]} of {one}" for one in plan.measures)
        sentences.append(f"more until each median is known to ±{design.until:.1%}, at most {most}; {limit}")
    elif limit:
        sentences.append(limit)
    few = [one for one in plan.measures if not design.is_adaptive and design.least[one] < FEWEST]
    if few:
        sentences.append(f"fewer than {FEWEST} blocks of {', '.join(few)}: their medians have a range, and no interval")
    return tuple(sentences)
