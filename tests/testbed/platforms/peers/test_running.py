"""Who a workload is left to, by processes that end as a runtime's do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.processes import parent
from testbed.platforms.peers.running import await_adoption
from testbed.qemu.reader import adopt_orphans

# Ends when there is something to read, and leaves a process that asks to be killed with its parent.
_LEAVING = """
import subprocess, sys
print(subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "sleep", "60"]).pid, flush=True)
sys.stdin.read()
"""


@contextmanager
def left_behind() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process that will end, and the one that it leaves to us."""
    command = [sys.executable, "-c", _LEAVING]
    with adopt_orphans(), subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as leaving:
        assert leaving.stdin is not None and leaving.stdout is not None
        pid = int(leaving.stdout.readline())
        try:
            yield leaving, pid
        finally:
            leaving.stdin.close()
            leaving.wait(10)
            assert parent(pid) == os.getpid()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_a_workload_is_waited_for_until_it_is_left_to_us() -> None:
    with left_behind() as (leaving, pid):
        assert not await_adoption(pid, 0.05), "its parent is still there"
        assert leaving.stdin is not None
        leaving.stdin.close()
        assert await_adoption(pid, 10.0) and parent(pid) == os.getpid()


def test_one_that_has_ended_is_not_waited_for() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
        assert await_adoption(child.pid, 0.0)
