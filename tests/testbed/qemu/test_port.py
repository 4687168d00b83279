"""Commands through a port: the launcher's server at its end, no machine between, and what no server would say."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from errno import EAGAIN, EBADF, EINVAL, ENOENT
from pathlib import Path

import pytest

from runtime.errors import WorkloadError
from runtime.launcher import StepError, frames
from runtime.plan.steps import CheckExecutable, Exec, OpenProcess, Plan, SignalProcess, Sync
from testbed.qemu import port as ports
from testbed.qemu.port import COUNT, NUMBERS, Outcome, Port, Reader, pack, read_end
from tests.testbed.served_port import served_port, shell
from tests.waiting import until
from vm_images.plans.command import signal_plan
from vm_images.plans.guest import FIRST_PROCESS


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    with served_port(tmp_path) as one:
        yield one


class Taken:
    """What comes of a program, whose output is taken at once; the ``held`` first bytes are not."""

    def __init__(self, port: Port, plan: Plan, held: int = 0) -> None:
        self._port, self._plan, self._held = port, plan, held
        self.output: dict[int, bytes] = {frames.OUTPUT: b"", frames.ERRORS: b""}
        self.wanted, self.ended = threading.Semaphore(0), threading.Event()
        self._end = (0, b"")
        self.number = port.begin(plan, self._take)

    def _take(self, number: int, kind: int, content: bytes) -> None:
        if kind in self.output:
            self.output[kind] += content
            if len(self.output[kind]) > self._held:
                self._port.send(number, frames.TAKEN, COUNT.pack(len(content)))
        elif kind == frames.WANTED:
            self.wanted.release()
        elif kind in (frames.ENDED, frames.FAILED):
            self._end = kind, content
            self.ended.set()

    def give(self, data: bytes) -> None:
        assert self.wanted.acquire(timeout=10)
        self._port.send(self.number, frames.INPUT, data)

    def status(self) -> int:
        assert self.ended.wait(20)
        return read_end(self._plan, *self._end)


def test_a_program_has_streams_of_its_own_and_a_status(port: Port) -> None:
    one = Taken(port, shell("cat; echo no >&2; exit 5"))
    sent = [os.urandom(frames.PIECE_BYTES) for _ in range(50)]
    for piece in (*sent, b""):
        one.give(piece)
    assert one.status() == 5
    assert (one.output[frames.OUTPUT], one.output[frames.ERRORS]) == (b"".join(sent), b"no\n")
    killed = Taken(port, shell("kill -9 $$"))
    assert killed.status() == 137


def test_no_more_is_under_way_than_is_taken(port: Port) -> None:
    lots = Taken(port, shell("head -c 300000 /dev/zero"), held=1 << 30)
    until(lambda: len(lots.output[frames.OUTPUT]) >= frames.CREDIT_BYTES)
    time.sleep(0.2)
    assert len(lots.output[frames.OUTPUT]) == frames.CREDIT_BYTES and not lots.ended.is_set()
    assert port.run(shell("exit 3"), 10) == 3, "another one is not kept waiting"
    while not lots.ended.wait(0.01):
        port.send(lots.number, frames.TAKEN, COUNT.pack(4096))
    assert lots.status() == 0 and len(lots.output[frames.OUTPUT]) == 300000


def test_what_is_left_in_the_background_keeps_nobody(port: Port) -> None:
    one = Taken(port, shell("(while :; do echo more; done) & exit 2"))  # which ends when nobody reads
    began_s = time.monotonic()
    assert one.status() == 2 and time.monotonic() - began_s < 10
    assert len(one.output[frames.OUTPUT]) < 2 << 20
    deaf = Taken(port, shell("exec <&-; sleep 0.2"))
    deaf.give(b"nobody reads this")
    deaf.give(b"nor this")
    assert deaf.status() == 0


def test_a_program_that_takes_too_long_is_killed(port: Port) -> None:
    one = Taken(port, shell("echo $$; exec sleep 100"))
    until(lambda: one.output[frames.OUTPUT].endswith(b"\n"))
    pid = int(one.output[frames.OUTPUT])
    port.forget(one.number)
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert port.run(shell("exec sleep 100"), 0.05) is None


def test_what_cannot_be_executed_says_why(port: Port) -> None:
    with pytest.raises(StepError) as raised:
        port.run(shell("true", "nowhere"), 10)
    assert raised.value.errno == ENOENT and isinstance(raised.value.failed, CheckExecutable)
    with pytest.raises(StepError) as raised:
        port.run(Plan((Exec(("/nowhere",), (), ""),)), 10)
    assert raised.value.errno == ENOENT and isinstance(raised.value.failed, Exec)
    with pytest.raises(StepError) as raised:
        port.run(Plan((Sync(1), *shell("true").child, Exec(("/bin/true",), (), ""))), 10)
    assert (raised.value.step, raised.value.errno) == (-2, EINVAL)
    assert port.run(shell("exit 4"), 10) == 4


def test_a_plan_without_a_program_ends_with_its_steps(port: Port) -> None:
    """As one that only signals: the answer says whether it could."""
    script = "trap 'exit 9' USR1; echo; while :; do sleep 0.05; done"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.read(1) == b"\n"
        signalling = Plan((OpenProcess(process.pid, FIRST_PROCESS), *signal_plan(0, signal.SIGUSR1).child))
        assert port.run(signalling, 10) == 0
        assert process.wait(10) == 9
    with pytest.raises(StepError) as raised:
        port.run(signal_plan(7, signal.SIGUSR1), 10)
    assert raised.value.errno == EBADF and isinstance(raised.value.failed, SignalProcess)


def test_several_run_at_once_and_too_many_are_refused(port: Port) -> None:
    plan = shell("read word; exit $word")
    many = [Taken(port, plan) for _ in range(frames.MOST_COMMANDS)]
    with pytest.raises(StepError) as raised:
        port.run(plan, 10)
    assert raised.value.errno == EAGAIN
    for number, one in enumerate(many):
        one.give(f"{number}\n".encode())
    assert [one.status() for one in many] == list(range(frames.MOST_COMMANDS))
    assert port.run(shell("exit 6"), 10) == 6


def test_who_waits_hears_of_the_end_of_the_port(port: Port) -> None:
    one = Taken(port, shell("exec sleep 100"))
    port._lose("the machine has ended")
    with pytest.raises(WorkloadError, match="has ended meanwhile"):
        one.status()
    with pytest.raises(WorkloadError, match="its port for commands is lost: the machine has ended"):
        port.run(shell("true"), 1)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (pack(1, frames.OUTPUT, bytes(4097)), "a frame of 4097 bytes"),
        (pack(1, frames.OUTPUT, bytes(4096)) * 17, "more than it may"),
        (pack(1, frames.ENDED, b"\0"), "an end of 1 bytes"),
        (b"\xff" * 12, "a frame of"),
        (b"", "the machine has ended"),
    ],
)
def test_a_guest_that_breaks_the_rules_is_not_talked_to(tmp_path: Path, said: bytes, why: str) -> None:
    one = Port(tmp_path / "port")
    ended = threading.Event()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as guest:
            guest.connect(str(one.path))
            until(lambda: one.connected)
            one.begin(shell("true"), lambda number, kind, content: ended.set() if kind == frames.ENDED else None)
            assert Reader(frames.PLAN_BYTES).feed(guest.recv(1 << 16))[0][:2] == (1, frames.START)
            guest.sendall(said) if said else guest.shutdown(socket.SHUT_RDWR)
            assert ended.wait(10)
        with pytest.raises(WorkloadError, match=why):
            one.begin(shell("true"), lambda *_: None)
    finally:
        one.close()


def test_a_guest_that_lies_or_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_START_S", 0.1)
    one = Port(tmp_path / "port")
    try:
        with pytest.raises(WorkloadError, match="nobody has connected"):
            one.run(shell("true"), 1)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as guest:
            guest.connect(str(one.path))
            until(lambda: one.connected)
            with pytest.raises(WorkloadError, match="has not answered"):
                one.run(shell("true"), 1)
            outcome = Outcome(one, shell("true"))
            strangers = pack(77, frames.ENDED, NUMBERS.pack(0, 0))
            guest.sendall(strangers + pack(outcome.number, frames.FAILED, NUMBERS.pack(99, 2)))
            with pytest.raises(WorkloadError, match="step 99 failed, which there is not"):
                outcome.wait(10)
    finally:
        one.close()
