"""The run's side of its players: pairs are recorded together, and what a player says is checked."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
from msgspec import to_builtins
from msgspec.structs import replace

from runtime.errors import PrerequisiteError, TestbedError, UsageError
from testbed.duet import players as module
from testbed.duet.messages import PROTOCOL, Inbox, Malformed, Met, Part, Ready, Said
from testbed.duet.players import Players, Recorder, check_settings, describe_part, void_together
from testbed.measures.schedule import PlannedTrial
from testbed.results import Outcome, RunFolder, Trial
from tests.testbed.measures.conftest import SETTINGS

PLANNED = (
    PlannedTrial(5, 2, "container", "utilisation", (20.0, 40.0), False, (), "vm"),
    PlannedTrial(7, 2, "vm", "utilisation", (20.0, 40.0), False, (3, 0), "container"),
)
PART = Part(PROTOCOL, "lease", "container", "small", "/scenarios", False, 1, ("start",))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "run", {"run": "run", "scenario": "small"})


def trial(number: int, platform: str = "container", outcome: Outcome = "ok") -> Trial:
    return Trial(number, 2, platform, "utilisation", outcome)


def test_pairs_are_recorded_together_and_with_their_place(folder: RunFolder) -> None:
    recorder = Recorder(PLANNED, folder)
    recorder.take(PLANNED[0], trial(5))
    recorder.take(PLANNED[0], trial(6))
    assert folder.trials() == (), "the other one may never end"
    recorder.take(PLANNED[1], trial(7, "vm"))
    assert [(one.trial, one.platform, one.beside, one.repeats) for one in folder.trials()] == [
        (5, "container", "vm", 0),
        (7, "vm", "container", 3),
    ]
    recorder.interrupt("Interrupted SIGINT")
    assert [(one.trial, one.outcome) for one in folder.trials()[2:]] == [(6, "interrupted"), (8, "interrupted")]


@pytest.mark.parametrize("number", [4, 6, 9])
def test_a_trial_that_was_not_planned_is_refused(folder: RunFolder, number: int) -> None:
    with pytest.raises(TestbedError, match=f"ended trial {number}, which was not planned"):
        Recorder(PLANNED, folder).take(PLANNED[0], trial(number))


def test_the_one_beside_a_void_trial_is_void_and_a_failure_is_not() -> None:
    one, other = void_together((trial(5), trial(7, "vm", "void")))
    assert (one.outcome, one.reason, other.outcome) == ("void", "beside a void trial, 7", "void")
    one, other = void_together((trial(5, outcome="failed"), trial(7, "vm", "void")))
    assert (one.outcome, other.outcome) == ("failed", "void")
    assert void_together((trial(5), trial(7))) == (trial(5), trial(7))


def ready(**changes: Any) -> Ready:
    return replace(Ready(PROTOCOL, {"label": "container", "emulated": False}, {}, to_builtins(SETTINGS)), **changes)


def test_a_revision_that_measures_in_another_way_is_refused() -> None:
    check_settings("container@abc", SETTINGS, ready())
    more = {**to_builtins(SETTINGS), "new": 1, "trials": 99}
    check_settings("container@abc", SETTINGS, ready(settings=more))
    other = to_builtins(replace(SETTINGS, load=replace(SETTINGS.load, rates_per_s=(5.0,))))
    with pytest.raises(UsageError, match=r"load.rates_per_s is \[5.0\] there and \[40.0, 20.0\] here"):
        check_settings("container@abc", SETTINGS, ready(settings=other))


def test_platforms_are_labelled_by_how_they_differ() -> None:
    assert describe_part("container@again", ready())["label"] == "container (again)"
    assert describe_part("container@again", ready())["again"] == "container"
    revision = describe_part("container@1a2b", ready(images={"web": {"id": "sha256:1"}}))
    assert (revision["label"], revision["images"]) == ("container (1a2b)", {"web": "sha256:1"})
    assert "again" not in revision


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (b"nonsense\n", "no message"),
        (b'{"type": "dance"}\n', "no message"),
        (b'{"type": "ended"}\n', "no message"),
        (b"[" * 100_000 + b"\n", "no message"),
        (b"x" * (5 << 20), "has no end"),
    ],
)
def test_what_is_no_message_is_refused(sent: bytes, problem: str) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", 0) as stream, os.fdopen(writing, "wb", 0) as sink:
        writer = threading.Thread(target=write_all, args=(sink, sent))
        writer.start()
        inbox = Inbox(stream)
        with pytest.raises(Malformed, match=problem):
            while True:
                inbox.read()
        while select.select([stream], [], [], 0.2)[0]:
            os.read(reading, 1 << 20)
        writer.join()


def write_all(sink: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[sink.write(view) :]


def test_messages_are_whole_however_they_come() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", 0) as stream, os.fdopen(writing, "wb", 0) as sink:
        inbox = Inbox(stream)
        sink.write(b'{"type": "met"}\n{"type": "sa')
        assert inbox.read() == [Met()]
        sink.write(b'id", "line": "hello"}\n')
        assert inbox.read() == [Said("hello")]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has a script be the player."""
    return lambda script: monkeypatch.setattr(module, "PLAYER", ("-c", script))


@pytest.mark.parametrize(
    ("script", "kind", "problem"),
    [
        ("raise SystemExit(3)", TestbedError, "the process that measured container has ended: exit status 3"),
        ("import os; os.kill(os.getpid(), 9)", TestbedError, "has ended: SIGKILL"),
        ("print('hello', flush=True)", Malformed, "no message of this protocol"),
        (
            'print(\'{"type": "failed", "kind": "prerequisite", "message": "no room", "hint": "make some"}\')',
            PrerequisiteError,
            "container: no room",
        ),
        (
            'print(\'{"type": "ready", "protocol": 99, "record": {}, "images": {}, "settings": {}}\', flush=True)',
            UsageError,
            "container speaks the protocol 99 of players, not 1",
        ),
    ],
)
def test_a_player_that_cannot_play_ends_the_run_with_its_reason(
    stand_in: Callable[[str], None], script: str, kind: type[TestbedError], problem: str
) -> None:
    stand_in(script)
    began_s = time.monotonic()
    with pytest.raises(kind, match=problem), Players({"container": (Path.cwd(), PART)}, print):
        pytest.fail("it is not ready")
    assert time.monotonic() - began_s < 30


READY = '{"type": "ready", "protocol": 1, "record": {"label": "container"}, "images": {}, "settings": {}}'
PAIR = (
    PlannedTrial(1, 1, "container", "start", beside="vm"),
    PlannedTrial(2, 1, "vm", "start", beside="container"),
)
# Ends its trials at once, and says when it was let go.
PLAYS = f"""
import json, sys, time
say = lambda **message: print(json.dumps(message), flush=True)
sys.stdin.readline()
print('{READY}', flush=True)
sys.stdin.readline()
for line in sys.stdin:
    planned = json.loads(line)["planned"]
    time.sleep(0.2 * (planned["trial"] - 1))
    say(type="met")
    sys.stdin.readline()
    let_go_ns = time.monotonic_ns()
    trial = {{name: planned[name] for name in ("trial", "block", "platform", "measure")}}
    figure = {{"metric": "at", "value": let_go_ns, "unit": "1"}}
    say(type="ended", trial={{**trial, "outcome": "ok", "metrics": [figure]}})
    say(type="done")
"""


def test_two_players_begin_at_the_same_instant(stand_in: Callable[[str], None], folder: RunFolder) -> None:
    stand_in(PLAYS)
    with Players({"container": (Path.cwd(), PART), "vm": (Path.cwd(), PART)}, print) as players:
        players.begin(folder)
        done = players.perform(PAIR)
        again = players.perform((PlannedTrial(3, 2, "vm", "start"),))
    assert [(one.platform, one.beside) for one in done] == [("container", "vm"), ("vm", "container")]
    moments = [one.value("at") for one in done]
    assert moments[0] and moments[1] and abs(moments[0] - moments[1]) < 20e6, "nanoseconds"
    assert folder.trials() == (*done, *again)


def test_a_player_that_dies_while_the_other_waits_ends_the_run(
    stand_in: Callable[[str], None], folder: RunFolder
) -> None:
    dies = PLAYS.replace('    say(type="met")', "    if planned['trial'] == 2: sys.exit(9)\n    say(type=\"met\")")
    stand_in(dies)
    with (
        pytest.raises(TestbedError, match="the process that measured vm has ended: exit status 9"),
        Players({"container": (Path.cwd(), PART), "vm": (Path.cwd(), PART)}, print) as players,
    ):
        players.begin(folder)
        players.perform(PAIR)
    assert folder.trials() == ()
