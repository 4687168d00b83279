"""The record of a run while it grows; on disk after each part, so that one that is cut short can be read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed.ladder.costs import Step
from testbed.ladder.model import HOST, Cost, Feature, Ladder, Missing, Pressure, Snippet, StepCost
from testbed.ladder.parts import NAMESPACE
from testbed.ladder.store import write_ladder
from testbed.probes.model import Outcome

# In place of a rung: what is measured of the kernel by itself.
KERNEL = ""


class Record:
    """What is known so far of a run in ``folder``. What a rung costs is added trial by trial."""

    def __init__(
        self,
        folder: Path,
        run_id: str,
        started: str,
        host: Mapping[str, str],
        rungs: Sequence[str],
        platforms: Sequence[str],
        clock: str = HOST,
        source: Mapping[str, object] | None = None,
        versions: Mapping[str, object] | None = None,
    ) -> None:
        self._clock = clock
        self._source, self._versions = dict(source or {}), dict(versions or {})
        self._folder = folder
        self._head = (run_id, started, host, tuple(rungs), tuple(platforms))
        self._began_s = time.monotonic()
        self._values: dict[tuple[str, str], list[float]] = {}
        self._steps: dict[tuple[str, int], tuple[Step, list[float]]] = {}
        self.outcomes: list[Outcome] = []
        self.pressures: list[Pressure] = []
        self.missing: list[Missing] = []
        self.snippets: tuple[Snippet, ...] = ()
        self.features: tuple[Feature, ...] = ()
        self.labels: dict[str, str] = {}
        self.emulated: list[str] = []

    def add_costs(self, name: str, values: Mapping[str, float]) -> None:
        """Add a trial's figures, by metric."""
        for metric, value in values.items():
            self._values.setdefault((name, metric), []).append(value)

    def add_steps(self, name: str, steps: Sequence[Step]) -> None:
        """Add what each step of a trial's start took. Steps of two trials are the same by their place in the plan:
        their words differ where they name the copy."""
        for at, step in enumerate(steps):
            self._steps.setdefault((name, at), (step, []))[1].append(step.took_us)

    def add_namespace(self, words: str, took_us: Sequence[float]) -> None:
        """Add what a clone with one kind of namespace took this kernel, which is no rung's."""
        self._steps[KERNEL, len(self._steps)] = Step(words, NAMESPACE, took_us[0]), list(took_us)

    def make(self) -> Ladder:
        """Return all that is known so far."""
        run_id, started, host, rungs, platforms = self._head
        return Ladder(
            id=run_id,
            started=started,
            host=host,
            rungs=rungs,
            platforms=platforms,
            outcomes=tuple(self.outcomes),
            costs=tuple(Cost(name, metric, tuple(of), self._clock) for (name, metric), of in self._values.items()),
            steps=tuple(
                StepCost(name, step.step, step.part, tuple(took)) for (name, _), (step, took) in self._steps.items()
            ),
            pressures=tuple(self.pressures),
            missing=tuple(self.missing),
            snippets=self.snippets,
            features=self.features,
            labels=dict(self.labels),
            emulated=tuple(self.emulated),
            took_s=round(time.monotonic() - self._began_s, 3),
            source=self._source,
            versions=self._versions,
        )

    def save(self) -> Ladder:
        """Write what is known; return it. Raises PrerequisiteError where nothing can be written."""
        ladder = self.make()
        write_ladder(self._folder, ladder)
        return ladder
