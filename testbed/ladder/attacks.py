"""Attacks all that a run goes over.

An attack is judged by what was reached and not by a clock, so it needs no quiet: as many containers as there are
processors are attacked side by side, and as many machines, each of which may use half a processor.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runtime.cgroups import Cgroup
from runtime.errors import TestbedError
from runtime.images.model import Image
from runtime.lease import CGROUP_ROOT
from testbed.lab import Lab
from testbed.ladder.attack import attack
from testbed.ladder.model import Missing
from testbed.ladder.record import Record
from testbed.ladder.targets import Target
from testbed.platforms.peers.names import PEERS
from testbed.platforms.protocol import Platform, Saving
from testbed.probes.model import Outcome

# The numbers of the applications that attacks are: those of attacks side by side are different.
_FIRST = 64


class Ground(Struct, frozen=True):
    """Where attacks are made: the run, its directory and lab, and the probes' image; ``progress`` takes lines."""

    run_id: str
    scratch: Path
    lab: Lab
    image: Image
    progress: Callable[[str], None]


def attack_all(targets: Sequence[Target], here: Mapping[str, Platform], ground: Ground, record: Record) -> None:
    """Attack each target on its platform, and put on record what came of each probe; or that it could not be attacked,
    and why. Nothing of an attack is left, whatever happens."""
    attacks = _Attacks(targets, here, ground, record)
    # The runtimes of peers leave processes to us, which are told by when they came.
    peers = [one for one in targets if one.platform in PEERS]
    machines = order_machines([one for one in targets if here[one.name].virtual], here)
    processors = os.cpu_count() or 1
    with ExitStack() as undo:
        under_way: dict[Future[tuple[Outcome, ...]], Target] = {}
        for lane in (machines, [one for one in targets if one not in (*machines, *peers)]):
            pool = ThreadPoolExecutor(processors)
            undo.callback(pool.shutdown, cancel_futures=True)
            under_way |= {pool.submit(attacks.make, one, _FIRST + targets.index(one)): one for one in lane}
        undo.push(lambda kind, *_: attacks.end() if kind is not None else None)
        for attacked in as_completed(under_way):
            attacks.take(under_way[attacked], attacked.result)
        for target in peers:
            attacks.take(target, partial(attacks.make, target, _FIRST))


def order_machines(targets: Sequence[Target], here: Mapping[str, Platform]) -> list[Target]:
    """Return machines in the order in which they are attacked side by side: those first that take longest, which are
    those that boot to be saved and then begin as a copy, and those on a slow processor. So none of them is left alone
    at the end."""
    return sorted(targets, key=lambda one: (isinstance(here[one.name], Saving), here[one.name].patience), reverse=True)


class _Attacks:
    """Makes attacks, and puts on record what came of them in the order of the targets."""

    def __init__(self, targets: Sequence[Target], here: Mapping[str, Platform], ground: Ground, record: Record) -> None:
        self._here, self._ground, self._record = here, ground, record
        self._over = threading.Event()
        self._outcomes: dict[str, tuple[Outcome, ...]] = {one.name: () for one in targets}

    def make(self, target: Target, application: int) -> tuple[Outcome, ...]:
        """Attack one; raises TestbedError."""
        ground = self._ground
        ground.progress(f"attacking {target.name}")
        return attack(
            self._here[target.name], target.rung, ground.lab, ground.image, ground.scratch, ground.progress,
            application=application, is_over=self._over.is_set,
        )  # fmt: skip

    def take(self, target: Target, find: Callable[[], tuple[Outcome, ...]]) -> None:
        """Put on record what an attack came to."""
        try:
            found = find()
        except TestbedError as error:
            first = str(error).splitlines()[0]
            self._ground.progress(f"{target.name} is not attacked: {first}")
            self._record.missing.append(Missing(target.name, first, "attack"))
        else:
            self._outcomes[target.name] = tuple(replace(one, rung=target.name) for one in found)
            self._record.outcomes = [one for each in self._outcomes.values() for one in each]
        self._record.save()

    def end(self) -> None:
        """Have all that are under way end now: who waits for an instance sees that it is gone."""
        self._over.set()
        Cgroup(f"{CGROUP_ROOT}/{self._ground.run_id}").kill()
