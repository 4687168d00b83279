"""A planner that stays serves those who come before it has settled."""

from __future__ import annotations

import socket
import subprocess
import sys

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
