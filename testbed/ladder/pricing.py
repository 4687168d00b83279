"""Prices rungs in randomised complete blocks: each block has every rung once, in an order that the seed decides."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct

from runtime.errors import TestbedError
from runtime.images.model import Image
from testbed.ladder import costs
from testbed.ladder.costs import Effort, Trial
from testbed.ladder.model import Missing
from testbed.ladder.record import Record
from testbed.measures.context import Surroundings
from testbed.platforms.protocol import Platform

# A rung that has failed so often in a kind of trial is not asked for more of it.
_MOST_FAILURES = 2
KINDS = ("instance", "load", "copies")


class Planned(Struct, frozen=True):
    """One trial: its kind, its block of that kind from 1 on, and whom it is of."""

    kind: str
    block: int
    name: str


def draw_blocks(efforts: Mapping[str, Effort], seed: int) -> Iterator[tuple[Planned, ...]]:
    """Yield the blocks: of each kind as many as the effort for it on any rung, each with those that take part. The
    same arguments always give the same ones."""
    for kind, attribute in zip(KINDS, ("trials", "loads", "ramps"), strict=True):
        for block in range(1, max((getattr(one, attribute) for one in efforts.values()), default=0) + 1):
            names = [name for name, effort in efforts.items() if getattr(effort, attribute) >= block]
            random.Random(f"{seed}/{kind}/{block}").shuffle(names)
            yield tuple(Planned(kind, block, name) for name in names)


class Pricing:
    """Performs trials and puts what they cost on record. What fails is told, and tried again once."""

    def __init__(
        self,
        surroundings: Surroundings,
        image: Image,
        platforms: Mapping[str, Platform],
        efforts: Mapping[str, Effort],
        record: Record,
        tell: Callable[[str], None],
    ) -> None:
        self._surroundings, self._image, self._platforms = surroundings, image, platforms
        self._efforts, self._record, self._tell = efforts, record, tell
        self._failures: dict[tuple[str, str], int] = {}

    def run(self, seed: int) -> None:
        """Go through all blocks; the record is on disk after each."""
        blocks = list(draw_blocks(self._efforts, seed))
        total, done = sum(map(len, blocks)), 0
        for block in blocks:
            for planned in block:
                done += 1
                self._tell(f"trial {done} of {total}: {planned.name}, {planned.kind}")
                self._perform(planned)
            self._record.save()

    def _perform(self, planned: Planned) -> None:
        key = planned.name, planned.kind
        while self._failures.get(key, 0) < _MOST_FAILURES:
            try:
                trial = self._measure(planned, self._failures.get(key, 0))
            except TestbedError as error:
                self._failures[key] = self._failures.get(key, 0) + 1
                first = str(error).splitlines()[0]
                self._tell(f"{planned.name}: {first}")
                if self._failures[key] == _MOST_FAILURES:
                    self._record.missing.append(Missing(planned.name, f"{planned.kind}: {first}", "price"))
                continue
            self._record.add_costs(planned.name, trial.values)
            self._record.add_steps(planned.name, trial.steps)
            return

    def _measure(self, planned: Planned, attempt: int) -> Trial:
        platform, effort = self._platforms[planned.name], self._efforts[planned.name]
        label = f"{planned.kind[0]}{planned.block}{'r' * attempt}-{planned.name}"
        if planned.kind == "load":
            return costs.measure_load(self._surroundings, platform, label, effort)
        measure = costs.measure_instance if planned.kind == "instance" else costs.measure_copies
        return measure(self._surroundings, platform, self._image, label, effort)

    def price_namespaces(self, rounds: int) -> None:
        """Put on record what each kind of namespace costs this kernel by itself."""
        try:
            times = costs.time_namespaces(rounds)
        except TestbedError as error:
            self._tell(f"namespaces are not timed one by one: {str(error).splitlines()[0]}")
            return
        for words, took_us in times.items():
            self._record.add_namespace(words, took_us)
