"""Puts a rung under pressure: an instance takes all it can of a resource, and a worker beside it shows who is hurt.

What takes is bounded four times: by the rung's own limits, by the program's ceilings, by the ceiling of the whole run
(testbed.neighbours.ceiling) and by its time; and of what one user of the host has only so many (watches), a reserve is
left that the host's own programs need.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from runtime.cgroups import Cgroup
from runtime.errors import TestbedError, WorkloadError
from runtime.images.merging import directories
from runtime.images.model import Image
from runtime.spec import Process, Resources, Spec
from testbed.interruption import defer_signals
from testbed.lab import Lab
from testbed.ladder.model import Missing, Pressure
from testbed.neighbours.cases import MIB, TENANT, compute_ceiling
from testbed.neighbours.ceiling import hold_below, require_headroom
from testbed.neighbours.neighbour import Neighbour, State, make_instance, make_spec
from testbed.platforms.protocol import Instance, Platform
from testbed.probes.image import PROGRAM
from testbed.probes.lines import read_printed
from testbed.sample import read_host

# What is done, and what it is called: the first are kinds of testbed-neighbour, the others of testbed-probe.
ATTACKS = {
    "fork": "starts processes that start processes",
    "memory": "touches ever more memory",
    "disk": "fills its disk",
    "spin": "computes on every processor",
    "descriptors": "opens all the files that it may",
    "watches": "takes all the inotify instances of its user",
}
# Those of a quick run.
QUICK_ATTACKS = ("fork", "watches")
WORKER = Resources(memory_bytes=128 * MIB, cpus=0.5, pids=32)
SERVICE = "worker"
WORKER_APPLICATION, ATTACKER_APPLICATION = 61, 62
# A neighbour that does less than this of what it did alone, whenever it is looked at, is hurt.
_HELD, _LOOKS = 0.5, 3
# A look. In shorter ones, or sooner, who is hurt is not: the attacker has only begun, and so has the worker when it is
# alone (measured: 0.25 s after 0.1 s shows 55 to 93 % where 0.5 s after 0.2 s shows 36 to 38).
WINDOW_S = 0.5
_LIFE_S = 240
_START_S, _ANSWER_S, _SETTLE_S, _LOOK_S = 60.0, 10.0, 0.2, 0.02
_RESERVE_BYTES = 512 * MIB
_WORK = re.compile(r"work ([0-9]{1,12}) ([0-9]{1,12})\s")
_TOOK = re.compile(r"took ([0-9]{1,9})\s")


def press(
    platform: Platform,
    rung: str,
    lab: Lab,
    probe: Image,
    neighbour: Image,
    lease: Path,
    tell: Callable[[str], None] = lambda line: None,
    *,
    attacks: Sequence[str] = tuple(ATTACKS),
    window_s: float = WINDOW_S,
) -> tuple[tuple[Pressure, ...], tuple[Missing, ...]]:
    """Return what each attack did to a worker beside it, on a platform that has been prepared with both images
    (testbed.probes.image, testbed.neighbours.image) among its own; and which could not be tried, and why. Call it in
    the lab.

    Raises PrerequisiteError on a host that would not keep its reserve, and TestbedError when the worker cannot be
    started.
    """
    pressures, untried, left = list[Pressure](), list[Missing](), list(attacks)
    while left:
        with _Pressed(platform, lab, probe, neighbour, lease, window_s) as pressed:
            while left and pressed.is_well:
                attack = left.pop(0)
                try:
                    pressure = pressed.by(rung, attack)
                except TestbedError as error:
                    missing = Missing(rung, f"{attack}: {error.message.splitlines()[0]}", "pressure")
                    tell(f"  {rung}: {missing.words}")
                    untried.append(missing)
                else:
                    tell(f"  {rung}: {pressure.words}")
                    pressures.append(pressure)
    return tuple(pressures), tuple(untried)


def find_most(look: Callable[[], float], alone_per_s: float) -> float:
    """Return the most that a worker does in one of several looks, of which the first that says it holds is the last.

    Who is hurt is so in each, and what else a host does passes.
    """
    most_per_s = 0.0
    for _ in range(_LOOKS):
        most_per_s = max(most_per_s, look())
        if most_per_s >= _HELD * alone_per_s:
            break
    return most_per_s


def judge(rung: str, attack: str, alone_per_s: float, pressed_per_s: float, figures: dict[str, float]) -> Pressure:
    """Return what an attack did; the rates are the worker's rounds in a second, before and meanwhile. Pure."""
    part = pressed_per_s / alone_per_s if alone_per_s > 0 else 0.0
    refused, killed = figures.get("refused"), figures.get("killed")
    stopped = [word for count, word in ((refused, "was refused more"), (killed, "was killed")) if count]
    itself = f" and {' and '.join(stopped)}" if stopped else ""
    words = f"{ATTACKS[attack]}{itself}: its neighbour did {min(part, 1.0):.0%} of its work"
    return Pressure(
        rung,
        attack,
        part >= _HELD,
        words,
        {"alone_per_s": alone_per_s, "pressed_per_s": pressed_per_s, "part": part, **figures},
    )


class _Pressed:
    """A worker on a platform, alone at first; within it, the whole run is held below its ceiling."""

    def __init__(
        self,
        platform: Platform,
        lab: Lab,
        probe: Image,
        neighbour: Image,
        lease: Path,
        window_s: float,
    ) -> None:
        self._platform, self._lab, self._lease = platform, lab, lease
        self._probe, self._neighbour, self._window_s = probe, neighbour, window_s * max(platform.patience, 1.0)
        self._undo = ExitStack()
        self._alone_per_s = 0.0
        self._ceiling = compute_ceiling(WORKER.memory_bytes or 0, 1, platform.virtual)
        self._worker = self._make(SERVICE, WORKER_APPLICATION, ("work", str(_LIFE_S)), WORKER)

    def __enter__(self) -> _Pressed:
        with ExitStack() as undo:
            require_headroom(self._ceiling, read_host().available_bytes, _RESERVE_BYTES)
            own = self._platform.cgroup(self._worker)
            undo.enter_context(hold_below(Cgroup(own.name.rpartition("/")[0], own.hierarchies), self._ceiling))
            undo.callback(self._worker.log.unlink, missing_ok=True)
            undo.enter_context(self._running(self._worker))
            self._wait_for_work()
            self._alone_per_s = self._measure(self._window_s)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._undo.close()

    def _make(self, name: str, application: int, args: tuple[str, ...], resources: Resources) -> Instance:
        layers = directories(self._probe.layers)
        link = self._lab.link(application, 0)
        spec = Spec(Process(args=(PROGRAM, *args)), layers, name, resources, link)
        return Instance(f"pressed-{name}", application, {name: spec}, self._lease / f"pressed-{name}.log")

    @contextmanager
    def _running(self, instance: Instance) -> Iterator[None]:
        try:
            with defer_signals():
                self._platform.start(instance)
            self._platform.started(instance, _START_S * self._platform.patience)
            yield
        finally:
            self._platform.stop(instance)

    @property
    def is_well(self) -> bool:
        """Whether the worker is still there, as it may not be after an attack."""
        return self._platform.alive(self._worker)

    def by(self, rung: str, attack: str) -> Pressure:
        """Have an attack done, and judge it by what the worker did before and meanwhile. Raises TestbedError where it
        cannot be done."""
        before = read_host().available_bytes
        figures: dict[str, float] = {}
        with self._attacking(attack) as took:
            time.sleep(_SETTLE_S)
            pressed_per_s = find_most(partial(self._measure, self._window_s), self._alone_per_s)
            figures["host_memory_bytes"] = max(before - read_host().available_bytes, 0)
            figures.update(took())
        return judge(rung, attack, self._alone_per_s, pressed_per_s, figures)

    @contextmanager
    def _attacking(self, attack: str) -> Iterator[Callable[[], dict[str, float]]]:
        """Within, the attack goes on; what is yielded says what it took."""
        log = self._lease / "pressed-attacker.log"
        with ExitStack() as undo:
            undo.callback(log.unlink, missing_ok=True)
            if attack in ("descriptors", "watches"):
                taker = self._make("attacker", ATTACKER_APPLICATION, ("exhaust", attack, str(_LIFE_S)), TENANT)
                undo.enter_context(self._running(taker))
                yield partial(self._await_figures, taker, lambda: _find_taken(read_printed(log)))
                return
            link = self._lab.link(ATTACKER_APPLICATION, 0)
            spec = make_spec(attack, self._neighbour, TENANT, self._ceiling, link, self._window_s)
            instance = make_instance("pressed-attacker", spec, log)
            patience_s = _START_S * self._platform.patience
            neighbour = undo.enter_context(Neighbour(self._platform, instance, patience_s))
            neighbour.go()
            yield partial(self._await_figures, instance, lambda: _tell_state(neighbour.read_state()))

    def _await_figures(self, attacker: Instance, read: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Return what an attacker says that it took; nothing when it does not come to say it, and that it was killed
        when it had all its memory. Raises WorkloadError for one that has ended otherwise and said nothing: nobody knows
        whether it took anything."""
        deadline_s = time.monotonic() + _ANSWER_S * self._platform.patience
        while not (figures := read()) and time.monotonic() < deadline_s:
            if not self._platform.alive(attacker):
                kills = self._platform.cgroup(attacker).memory_kills()
                if figures := read() or ({"killed": float(kills)} if kills else {}):
                    break
                how = self._platform.ending(attacker) or "nobody knows how"
                raise WorkloadError(f"what attacks has ended before it said what it took: {how}", f"see {attacker.log}")
            time.sleep(_LOOK_S)
        return figures

    def _wait_for_work(self) -> None:
        deadline_s = time.monotonic() + _START_S * self._platform.patience
        while self._read_work()[0] == 0:
            if time.monotonic() > deadline_s or not self._platform.alive(self._worker):
                raise TestbedError(f"press {self._platform.name}: the worker does not work", f"see {self._worker.log}")
            time.sleep(_LOOK_S)

    def _read_work(self) -> tuple[int, int]:
        """Return how many rounds the worker has done, and in how many it was refused something."""
        found = _WORK.findall(read_printed(self._worker.log))
        return (int(found[-1][0]), int(found[-1][1])) if found else (0, 0)

    def _measure(self, window_s: float) -> float:
        """Return how many rounds in a second the worker does in a window."""
        begin, begin_s = self._read_work()[0], time.monotonic()
        time.sleep(window_s)
        return (self._read_work()[0] - begin) / (time.monotonic() - begin_s)


def _find_taken(printed: str) -> dict[str, float]:
    return {"took": float(found[1])} if (found := _TOOK.search(printed)) else {}


def _tell_state(state: State | None) -> dict[str, float]:
    if state is None:
        return {}
    return {"took": float(state.work), "refused": float(state.refused), "killed": float(state.killed)}
