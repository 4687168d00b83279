"""A planner that stays serves those who come before it has settled, and its name is nobody else's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.oci import resident
from runtime.oci.caller import QUESTION

# The planner's main thread moves the process between cgroups, which takes until its standard input ends.
SLOW_TO_MOVE = """
import contextlib, socket, sys
from runtime.oci import resident
@contextlib.contextmanager
def moves_slowly():
    sys.stdin.read()
    yield
resident.own_cgroup = moves_slowly
resident.stay(socket.socket(fileno=int(sys.argv[1])), 0, lambda: False)
"""


def test_it_answers_while_it_moves_into_its_cgroup() -> None:
    """A client that waited for that would give the planner up as stuck, and start another."""
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind("")  # an abstract name that the kernel chooses (unix(7), "Autobind feature")
        listening.listen()
        command = [sys.executable, "-c", SLOW_TO_MOVE, str(listening.fileno())]
        with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listening.fileno()]) as planner:
            client.settimeout(30)
            client.connect(listening.getsockname())
            client.sendall(QUESTION)
            assert client.recv(1) == b"\0"
            assert planner.poll() is None
            planner.communicate(timeout=30)
            assert planner.returncode == 0


def test_a_name_is_there_when_somebody_listens_at_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a client would take it for a killed planner's, and `clean` remove it."""
    seen: list[list[str]] = []

    class Watched(socket.socket):
        def listen(self, backlog: int = 0, /) -> None:
            seen.append(sorted(path.name for path in tmp_path.glob("*.socket")))
            super().listen(backlog)

    (tmp_path / "one.socket.new").touch()  # of a planner that was killed before it listened
    monkeypatch.setattr("runtime.oci.resident.socket.socket", Watched)
    name = resident.Socket(tmp_path, "one.socket")
    listening = name.listen()
    assert listening is not None and seen == [[]]
    assert name.is_ours() and sorted(path.name for path in tmp_path.iterdir()) == ["lock", "one.socket"]
    with listening, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "one.socket"))
    name.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


SLOW = """
import socket, sys, time
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen()
print("ready", flush=True)
client, _ = listening.accept()
client.recv(100)
time.sleep(float(sys.argv[2]))
client.sendall(b"\\0")
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_a_planner_that_is_slow_keeps_its_name_unless_it_is_stopped(stopped: bool, tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-c", SLOW, str(tmp_path / "one.socket"), "2.3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as slow:
        assert slow.stdout is not None and slow.stdout.readline() == b"ready\n"
        if stopped:
            os.kill(slow.pid, signal.SIGSTOP)
        began_s = time.monotonic()
        listening = resident.Socket(tmp_path, "one.socket").listen()
        took_s = time.monotonic() - began_s
        slow.kill()
    if listening is not None:
        listening.close()
    assert (listening is not None) is stopped
    assert took_s < 2 if stopped else 2 < took_s < 5
