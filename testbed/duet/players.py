"""The run's side of its players: they are started, told what to measure, and have their trials recorded.

What they measure at the same time begins at the same instant: where the measures meet, each waits for all others. The
trials of a pair are recorded together, so that a run that is killed has both or none.
"""

from __future__ import annotations

import selectors
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from msgspec import to_builtins
from msgspec.structs import replace

from runtime.errors import TestbedError, UsageError
from runtime.speed import scale
from testbed.aliases import describe_alias, find_original, is_again, is_of_revision
from testbed.duet.messages import (
    PROTOCOL,
    Begin,
    Done,
    Ended,
    Failed,
    FromPlayer,
    Go,
    Inbox,
    Met,
    Part,
    Play,
    Ready,
    Said,
    make_error,
    send,
)
from testbed.duet.tree import ROOT, without_python_paths
from testbed.interruption import Interrupted
from testbed.measures.schedule import PlannedTrial
from testbed.measures.trials import make_unmeasured, place
from testbed.request import Options, Request
from testbed.results import RunFolder, Trial
from testbed.scenario.model import Settings

PLAYER = ("-m", "testbed.duet.player")
# In which a player takes down what it has started: guests of a busy host take their time.
_END_S = 60.0


class Player:
    """A player's process: of the tree at ``root``, for the platform that the run calls ``name``."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        # In a session of its own: Ctrl-C is for the run, which tells its players.
        self._process = subprocess.Popen(
            [sys.executable, *PLAYER],
            cwd=root,
            env=without_python_paths(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout
        self._orders, self._stdout = self._process.stdin, self._process.stdout
        self.inbox = Inbox(self._stdout)

    def send(self, message: Part | Begin | Play | Go) -> None:
        """Send an order; when nobody reads it, that is found out with the next news."""
        with suppress(OSError):
            send(self._orders, message)

    def receive(self) -> list[FromPlayer]:
        """Wait for news and return them. Raises what the player failed with, or that it has ended."""
        try:
            messages = self.inbox.read()
        except EOFError:
            status = self._process.wait()
            how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            raise TestbedError(
                f"the process that measured {self.name} has ended: {how}", "what it said is above"
            ) from None
        for message in messages:
            if isinstance(message, Failed):
                raise make_error(message, self.name)
        return messages

    def end(self) -> None:
        """End the player and wait until it has taken down what it started."""
        with suppress(OSError):
            self._process.send_signal(signal.SIGTERM)
        with suppress(OSError):
            self._orders.close()
        try:
            self._process.wait(scale(_END_S))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()


class Players:
    """A context manager: within it the players live. ``parts`` has for each platform, by the run's name of it, the root
    of the tree that runs it and what it is told."""

    def __init__(self, parts: Mapping[str, tuple[Path, Part]], progress: Callable[[str], None]) -> None:
        self._parts = parts
        self._progress = progress
        self._players: dict[str, Player] = {}
        self._folder: RunFolder | None = None
        self.ready: dict[str, Ready] = {}

    def __enter__(self) -> Players:
        """Start all, one after the other: what each prepares is in the store for the next."""
        try:
            for name, (root, part) in self._parts.items():
                self._progress(f"preparing {name}")
                player = self._players[name] = Player(name, root)
                player.send(part)
                while name not in self.ready:
                    for news in player.receive():
                        self._hear(player, news)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for player in self._players.values():
            player.end()

    @property
    def records(self) -> dict[str, dict[str, object]]:
        """What the manifest records of each platform."""
        return {name: describe_part(name, ready) for name, ready in self.ready.items()}

    def begin(self, folder: RunFolder) -> None:
        """Have all enter their labs, with a run folder to write to."""
        self._folder = folder
        for player in self._players.values():
            player.send(Begin(str(folder.path.absolute())))

    def perform(self, unit: tuple[PlannedTrial, ...]) -> Sequence[Trial]:
        """Have what is planned measured at the same time, record its trials, and return them.

        An interruption is recorded and raised again. Raises what ended a player, but not for a workload that failed.
        """
        assert self._folder is not None, "nothing has begun"
        recorder = Recorder(unit, self._folder)
        playing = {self._players[one.platform]: one for one in unit}
        try:
            self._play(playing, recorder)
        except (KeyboardInterrupt, SystemExit, Interrupted) as interruption:
            recorder.interrupt(f"{type(interruption).__name__} {interruption}".rstrip())
            raise
        return recorder.recorded

    def _play(self, playing: Mapping[Player, PlannedTrial], recorder: Recorder) -> None:
        waiting: set[Player] = set()
        active = set(playing)
        with selectors.DefaultSelector() as selector:
            for player, planned in playing.items():
                selector.register(player.inbox, selectors.EVENT_READ, player)
                player.send(Play(replace(planned, platform=find_original(planned.platform))))
            while active:
                for key, _ in selector.select():
                    player = key.data
                    for news in player.receive():
                        if isinstance(news, Ended):
                            recorder.take(playing[player], news.trial)
                        elif isinstance(news, Met):
                            waiting.add(player)
                        elif isinstance(news, Done):
                            active.discard(player)
                            selector.unregister(player.inbox)
                        else:
                            self._hear(player, news)
                if active and waiting >= active:
                    for player in waiting:
                        player.send(Go())
                    waiting.clear()

    def _hear(self, player: Player, news: FromPlayer) -> None:
        if isinstance(news, Said):
            self._progress(f"  {player.name}: {news.line.strip()}")
        elif isinstance(news, Ready):
            if news.protocol != PROTOCOL:
                raise UsageError(f"{player.name} speaks the protocol {news.protocol} of players, not {PROTOCOL}")
            self.ready[player.name] = news


class Recorder:
    """Takes the trials of what is measured at the same time and records those of the same index together."""

    def __init__(self, unit: tuple[PlannedTrial, ...], folder: RunFolder) -> None:
        self._unit = unit
        self._folder = folder
        self._taken: dict[str, list[Trial]] = {one.platform: [] for one in unit}
        self._rows = 0
        self.recorded: list[Trial] = []

    def take(self, planned: PlannedTrial, trial: Trial) -> None:
        """Take the next trial of a player, by the run's name of its platform."""
        taken = self._taken[planned.platform]
        if trial.trial != planned.trial + len(taken) or len(taken) >= planned.count:
            raise TestbedError(f"{planned.platform} ended trial {trial.trial}, which was not planned")
        taken.append(place(planned, replace(trial, platform=planned.platform, block=planned.block)))
        while all(len(of) > self._rows for of in self._taken.values()):
            self._record([of[self._rows] for of in self._taken.values()])

    def _record(self, row: Sequence[Trial]) -> None:
        for trial in void_together(row):
            self._folder.append(trial)
            self.recorded.append(trial)
        self._rows += 1

    def interrupt(self, reason: str) -> None:
        """Record the trials under way as interrupted."""
        if self._rows < self._unit[0].count:
            for planned in self._unit:
                self._folder.append(make_unmeasured(planned, self._rows, "interrupted", reason))


def make_part(name: str, lease: str, options: Options, request: Request, tree: Path) -> Part:
    """Return what the player of a platform is told. A scenario that is asked for by its name is that of the player's
    own ``tree``; one by its path is the same for all."""
    return Part(
        protocol=PROTOCOL,
        lease=lease,
        platform=find_original(name),
        scenario=str(Path(options.scenario).absolute()) if "/" in options.scenario else options.scenario,
        scenarios=str(tree / "scenarios" if is_of_revision(name) else options.scenarios.absolute()),
        quick=options.quick,
        seed=options.seed,
        measures=request.measures,
        accelerator=options.accelerator,
        connect=options.connect,
        base=options.base,
        guest_kernel=str(Path(options.guest_kernel).absolute()) if options.guest_kernel else "",
        emulator_cpus=options.emulator_cpus,
    )


def void_together(row: Sequence[Trial]) -> tuple[Trial, ...]:
    """Return the trials of a pair; where one is void, one that is ok has nothing to be compared with and is void too,
    so that both are done again."""
    void = next((trial for trial in row if trial.outcome == "void"), None)
    if void is None:
        return tuple(row)
    reason = f"beside a void trial, {void.trial}"
    return tuple(replace(one, outcome="void", reason=reason) if one.outcome == "ok" else one for one in row)


def describe_part(name: str, ready: Ready) -> dict[str, object]:
    """Return what the manifest records of a player's platform."""
    label = describe_alias(name, str(ready.record.get("label", find_original(name))))
    again = {"again": find_original(name)} if is_again(name) else {}
    return {**ready.record, "label": label, **again, "images": {one: of.get("id") for one, of in ready.images.items()}}


def check_settings(name: str, settings: Settings, ready: Ready) -> None:
    """Raise UsageError when a player would measure the scenario in another way than the run: its revision's file says
    something else. What only one of them knows is not looked at."""
    ours = _flatten(to_builtins(settings))
    theirs = _flatten(ready.settings)
    differing = [key for key in ours if key in theirs and ours[key] != theirs[key] and key != "trials"]
    if differing:
        told = ", ".join(f"{key} is {theirs[key]} there and {ours[key]} here" for key in differing[:3])
        raise UsageError(
            f"{name}: the scenario is measured in another way: {told}",
            f"compare with one file: --scenario {shlex.quote(str(ROOT / 'scenarios'))}/NAME (a path)",
        )


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: list(tree) if isinstance(tree, tuple | list) else tree}
    return {
        name: value
        for key, below in tree.items()
        for name, value in _flatten(below, f"{prefix}.{key}" if prefix else str(key)).items()
    }
