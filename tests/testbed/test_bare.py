"""Bare processes are timed by the same code on every host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed import bare
from testbed.bare import WORKLOADS, time_work


@pytest.mark.no_cover
def test_every_piece_of_work_takes_time_and_leaves_nothing() -> None:
    before = set(os.listdir("/proc/self/fd"))
    seconds = time_work()
    assert seconds.keys() == WORKLOADS.keys()
    assert all(0 < one < 1 for one in seconds.values())
    assert seconds["start a process"] > seconds["system call"]
    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_program_that_fails_is_an_error_and_no_figure(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="/bin/false: exit status 1"):
        bare._spawn("/bin/false")
    with pytest.raises(FileNotFoundError):
        bare._spawn(str(tmp_path / "none"))
