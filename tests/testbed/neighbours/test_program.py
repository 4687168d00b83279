"""The neighbour's program for real: what each kind does, that none goes beyond what it was given, and that nothing
of it stays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from testbed.neighbours.build import NEIGHBOUR
from testbed.neighbours.neighbour import State, parse_state
from testbed.scenario.neighbours import KINDS
from testbed.services.exchange import NoAnswer, fetch
from tests.waiting import until

MIB = 1 << 20
Begin = Callable[..., "Bad"]
# Those that write below the root of whoever runs them: in a container, as test_containers.py does.
IN_MEMORY = [kind for kind in KINDS if kind not in ("disk", "rename")]


def find_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Bad:
    """A program that listens; it and all that descends from it have a session of their own."""

    def __init__(self, kind: str, seconds: int, limit_bytes: int, tasks: int) -> None:
        self.port = find_port()
        words = (kind, self.port, seconds, limit_bytes, tasks, "127.0.0.1")
        self.process = subprocess.Popen([NEIGHBOUR.build(), *map(str, words)], start_new_session=True)
        until(lambda: self.get("/") == b"ok\n")

    def get(self, path: str) -> bytes:
        with suppress(NoAnswer):
            return fetch("127.0.0.1", self.port, path, 5).body
        return b""

    def state(self) -> State:
        state = parse_state(self.get("/state"))
        assert state is not None
        return state

    def others(self) -> list[int]:
        """The processes of its session but itself, those that have ended and wait to be reaped left out."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid and fields[0] != "Z":
                    found.append(int(path.parent.name))
        return [pid for pid in found if pid != self.process.pid]

    def is_gone(self) -> bool:
        return not self.others()


@pytest.fixture
def begin() -> Iterator[Begin]:
    made: list[Bad] = []

    def make(kind: str, *, seconds: int = 20, limit_bytes: int = 16 * MIB, tasks: int = 12) -> Bad:
        made.append(Bad(kind, seconds, limit_bytes, tasks))
        return made[-1]

    yield make
    for one in made:
        one.process.kill()
        one.process.wait()
        until(one.is_gone)


@pytest.mark.parametrize("kind", IN_MEMORY)
def test_it_is_calm_until_it_is_told_and_works_then(kind: str, begin: Begin) -> None:
    one = begin(kind)
    assert one.others() == [] and one.state() == State(0, 0, 0)
    one.get("/go")
    one.get("/go")  # once is enough
    until(lambda: one.state().work > 0)
    assert 1 <= len(one.others()) <= max(os.cpu_count() or 1, 1 + 12)
    assert one.get("/other") == b""


def test_a_fork_bomb_stops_at_its_own_ceiling(begin: Begin) -> None:
    one = begin("fork", tasks=30)
    one.get("/go")
    until(lambda: one.state().work == 30)
    time.sleep(0.2)
    assert one.state() == State(30, 0, 0) and len(one.others()) == 31


def test_memory_is_taken_up_to_its_ceiling_and_no_further(begin: Begin) -> None:
    one = begin("memory", limit_bytes=32 * MIB)
    one.get("/go")
    until(lambda: one.state().work > 3 * 32 * MIB // 4096, 30)  # it has gone over all of it
    (pid,) = one.others()
    assert 32 * MIB <= int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 < 36 * MIB
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert limits.partition("Max address space")[2].split()[0] == str((32 + 64) * MIB)
    assert limits.partition("Max file size")[2].split()[0] == str(32 * MIB)


def test_a_worker_that_is_killed_is_replaced_and_counted(begin: Begin) -> None:
    one = begin("memory")
    one.get("/go")
    until(lambda: one.others())
    (pid,) = one.others()
    os.kill(pid, 9)
    until(lambda: one.state().killed == 1)
    (another,) = until(lambda: [other for other in one.others() if other != pid])
    assert another != pid and one.state().killed == 1


@pytest.mark.parametrize("kind", ["fork", "spin", "mmap"])
def test_it_ends_by_itself_with_all_that_it_started(kind: str, begin: Begin) -> None:
    one = begin(kind, seconds=2)
    one.get("/go")
    assert one.process.wait(20) == 0
    until(one.is_gone, 5)


@pytest.mark.parametrize("kind", ["fork", "spin"])
def test_it_ends_with_all_that_it_started_when_it_is_told(kind: str, begin: Begin) -> None:
    one = begin(kind, seconds=60)
    one.get("/go")
    until(one.others)
    assert one.get("/end") == b"ok\n"
    assert one.process.wait(10) == 0
    until(one.is_gone, 5)


def test_where_memory_is_at_its_end_its_workers_are_killed_and_not_itself(begin: Begin) -> None:
    def score(pid: int) -> str:
        return Path(f"/proc/{pid}/oom_score_adj").read_text().strip()

    one = begin("spin")
    one.get("/go")
    (worker, *_) = until(one.others)
    until(lambda: score(worker) == "1000")
    assert score(one.process.pid) == score(os.getpid())


def test_nothing_outlives_the_one_that_was_killed(begin: Begin) -> None:
    one = begin("fork", tasks=40)
    one.get("/go")
    until(lambda: one.state().work == 40)
    assert len(one.others()) == 41
    one.process.kill()
    assert one.process.wait() == -signal.SIGKILL
    until(one.is_gone, 5)
    assert one.others() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "usage"),
        (("nothing", "80", "1", "1", "1", "x"), "nothing: not a kind"),
        (("spin", "65536", "1", "1", "1", "x"), "PORT: not a number in its range"),
        (("spin", "80", "3601", "1", "1", "x"), "SECONDS: not"),
        (("spin", "80", "1", "99999999999999", "1", "x"), "BYTES: not"),
        (("spin", "80", "1", "-1", "1", "x"), "BYTES: not"),
        (("fork", "80", "1", "1", "32769", "x"), "TASKS: not"),
        (("fork", "80", "1", "1", "2x", "x"), "TASKS: not"),
    ],
)
def test_a_wrong_word_is_told_in_a_line(words: tuple[str, ...], said: str) -> None:
    done = subprocess.run([NEIGHBOUR.build(), *words], capture_output=True, text=True, timeout=10)
    assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1


def test_every_kind_of_a_scenario_is_one_of_the_program(begin: Begin) -> None:
    source = (NEIGHBOUR.folder / "kinds.c").read_text()
    table = source.rpartition("kinds[] = {")[2]
    assert [word for word in table.split('"')[1::2]] == list(KINDS)


def test_what_else_is_answered_is_no_state() -> None:
    assert parse_state(b"work=1 refused=2 killed=3\n") == State(1, 2, 3)
    for body in (b"", b"work=1", b"work=1 refused=2 killed=3\nmore", b"work=-1 refused=2 killed=3\n", b"\xff" * 99):
        assert parse_state(body) is None
