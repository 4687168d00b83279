"""A process is its number and its start time; another with the same number is another."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import UsageError
from runtime.processes import (
    ProcessGone,
    alive,
    await_executed,
    executed,
    open_pidfd,
    parse_signal,
    send_signal,
    start_time,
    wait_exit,
)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def ended(pid: int) -> None:
    """Wait until a child has ended, and leave it a zombie."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_a_living_process(sleeper: subprocess.Popen[bytes]) -> None:
    started = start_time(sleeper.pid)
    assert alive(sleeper.pid, started)
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert 0 <= uptime - started / os.sysconf("SC_CLK_TCK") < 30


def test_another_start_time_is_another_process(sleeper: subprocess.Popen[bytes]) -> None:
    other = start_time(sleeper.pid) - 1
    assert not alive(sleeper.pid, other)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ProcessGone, match=str(sleeper.pid)):
        open_pidfd(sleeper.pid, other)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_zombie_is_dead(sleeper: subprocess.Popen[bytes]) -> None:
    started = start_time(sleeper.pid)
    sleeper.kill()
    ended(sleeper.pid)
    assert start_time(sleeper.pid) == started
    assert not alive(sleeper.pid, started)
    with pytest.raises(ProcessGone):
        open_pidfd(sleeper.pid, started)


@pytest.mark.parametrize("executes", [True, False])
def test_a_process_that_only_was_forked_tells_so_even_when_it_is_dead(executes: bool) -> None:
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os.execv("/bin/true", ["true"]) if executes else os._exit(0)
    started = start_time(pid)
    assert executed(pid) is False and executed(pid, started) is False
    assert executed(pid, started + 1) is None, "that is another's"
    os.close(write)
    ended(pid)
    assert executed(pid) is executes
    os.waitpid(pid, 0)
    os.close(read)
    assert executed(pid) is None, "nobody can tell"


@pytest.mark.parametrize("executes", [True, False])
def test_who_is_about_to_execute_a_program_is_waited_for(executes: bool) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        time.sleep(0.1)
        if executes:
            os.execv("/bin/true", ["true"])
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(reading)
    assert executed(pid) is False
    os.close(writing)
    assert await_executed(pid, start_time(pid)) is executes
    os.waitpid(pid, 0)
    assert await_executed(pid) is None, "nobody can tell"


def test_no_such_process(sleeper: subprocess.Popen[bytes]) -> None:
    started = start_time(sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    assert not alive(sleeper.pid, started) and not alive(0, 0) and not alive(-1, 0)
    for pid in (sleeper.pid, 0, -1):
        with pytest.raises(ProcessGone):
            open_pidfd(pid, started)
    with pytest.raises(ProcessGone):
        start_time(sleeper.pid)


def test_a_command_with_parentheses_and_spaces(tmp_path: Path) -> None:
    odd = tmp_path / "a) Z 1 (b"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([odd, "10"]) as process:
        comm = Path(f"/proc/{process.pid}/comm")
        while (
            b") Z 1 (" not in comm.read_bytes()
        ):  # the kernel closes descriptors, which Popen awaits, before it renames
            assert process.poll() is None
        started = start_time(process.pid)
        assert started >= start_time(os.getpid()) and alive(process.pid, started)
        process.kill()


def test_a_signal_and_the_wait_for_its_effect(sleeper: subprocess.Popen[bytes]) -> None:
    pidfd = open_pidfd(sleeper.pid, start_time(sleeper.pid))
    try:
        began = time.monotonic()
        assert not wait_exit(pidfd, 0.05)
        assert 0.05 <= time.monotonic() - began < 5
        send_signal(pidfd, signal.SIGTERM)
        assert wait_exit(pidfd, 10) and wait_exit(pidfd)
        assert sleeper.wait() == -signal.SIGTERM
        with pytest.raises(ProcessGone):
            send_signal(pidfd, signal.SIGTERM)
    finally:
        os.close(pidfd)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("term", 15),
        ("15", 15),
        ("0", 0),
        ("KILL", 9),
        ("RTMIN", signal.SIGRTMIN),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("RTMAX-1", signal.SIGRTMAX - 1),
        ("64", 64),
    ],
)
def test_signals_as_kill_takes_them(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "SIG", "FOO", "-1", "65", "99999", "RTMIN-1", "RTMIN+31", "RTMAX-40", "²", "1.5"])
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(UsageError, match="not a signal"):
        parse_signal(text)
