"""The host tells which attempts' processes were there when it looked."""

from __future__ import annotations

import subprocess

from testbed.probes.sight import Seen, look
from tests.waiting import until

TOKEN = "5e1f7a3c"


def test_who_is_there_is_told_from_who_has_gone() -> None:
    seen: dict[int, Seen] = {}
    command = f"echo {TOKEN}-7 >/proc/$$/comm; read word"
    with subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE) as attempt:
        assert until(lambda: look(TOKEN, (7, 8), seen)) == {7}
        assert seen[7].pids == {attempt.pid} and 8 not in seen
        attempt.communicate(b"\n")
    assert look(TOKEN, (7, 8), seen) == frozenset() and seen[7].pids == {attempt.pid}
