"""Canaries for real: attacks at the same time disturb each other's in nothing."""

from __future__ import annotations

import fcntl
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
