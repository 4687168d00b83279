"""Canaries for real: attacks at the same time disturb each other's in nothing."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from runtime.lease import lease
from testbed.host.settings import read_record
from testbed.lab import Lab
from testbed.probes.canaries import SETTINGS, Canaries
from testbed.probes.model import Probe
from testbed.probes.objects import read_left
from testbed.probes.place import Place, Untestable
from testbed.probes.processes import FIRST_SIGNAL

pytestmark = pytest.mark.root
WRITE = Probe("settings-write", "kernel_settings", "Writes.", "It matters.", "masks", "setting", ("write", "{setting}"))


@pytest.fixture
def place(run_name: str) -> Iterator[Callable[[str], Place]]:
    with lease(run_name) as directory, Lab():
        yield lambda token: Place(directory, token, "10.77.0.1", "10.77.1.10", "probed", False)


def test_each_of_two_attacks_has_a_setting_and_a_record_of_its_own(place: Callable[[str], Place]) -> None:
    one, other = place("00000001"), place("00000002")
    with Canaries(one) as first:
        with Canaries(other) as second:
            assert first.setting != second.setting
            assert set(read_record(one.lease)) >= {first.setting, second.setting}
            for canaries in (first, second):
                assert canaries.fill(WRITE, 0)["setting"] == str(canaries.setting)
                assert canaries.setting.read_text().strip() == canaries.value
            noted = read_left(one.lease)
        left = read_left(one.lease)
        assert ("directories", "00000001") in left and ("directories", "00000002") not in left
        assert len(left) * 2 == len(noted), "what one has noted goes with it, and nothing else"
        assert set(read_record(one.lease)) == {first.setting}
    assert read_left(one.lease) == () and read_record(one.lease) == {}


def test_without_a_setting_that_nobody_has_the_probe_says_so(place: Callable[[str], Place]) -> None:
    with ExitStack() as undo:
        for setting in filter(Path.exists, SETTINGS):
            fcntl.flock(undo.enter_context(setting.open()), fcntl.LOCK_EX)
        with Canaries(place("00000003")) as canaries, pytest.raises(Untestable, match="another run has changed it"):
            canaries.fill(WRITE, 0)


def test_what_was_done_to_the_canary_is_known_before_it_is_judged(place: Callable[[str], Place]) -> None:
    """However late it comes to its turn: it tells of signals in their order, and of the last one last."""
    with Canaries(place("00000004")) as canaries:
        pid = canaries.process.pid
        os.kill(pid, signal.SIGSTOP)
        for number in range(FIRST_SIGNAL, FIRST_SIGNAL + 24):
            os.kill(pid, number)
        timer = threading.Timer(0.3, os.kill, (pid, signal.SIGCONT))
        timer.start()
        canaries.settle()
        timer.join()
        said = [number for number in range(1, 65) if canaries.process.has_said(f"signal {number}")]
        assert said[-25:] == [*range(FIRST_SIGNAL, FIRST_SIGNAL + 24), 64]
