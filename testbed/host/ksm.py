"""KSM, the kernel's merging of equal pages (Documentation/admin-guide/mm/ksm.rst): its settings, its counters."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from runtime.errors import PrerequisiteError, TestbedError
from runtime.speed import is_over, scale
from testbed.host.settings import change_settings

KSM = Path("/sys/kernel/mm/ksm")
# With the kernel's own hundred pages each 20 ms a guest of 256 MiB takes 13 s. Ten times as many are 200 MiB/s.
PAGES_TO_SCAN = 1000
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_POLL_S = 0.05


class Counters(Struct, frozen=True):
    """What KSM has done: ``shared`` pages remain, each for all ``sharing`` that it stands for besides.

    ``unshared`` have been looked at and found to be like no other; ``full_scans`` counts since boot.
    """

    shared: int
    sharing: int
    unshared: int
    full_scans: int

    @property
    def saved_bytes(self) -> int:
        """The memory that merging saves, before KSM's own bookkeeping."""
        return self.sharing * _PAGE_BYTES


def read_counters() -> Counters:
    """Return the counters now. Raises PrerequisiteError on a kernel without KSM."""
    names = ("pages_shared", "pages_sharing", "pages_unshared", "full_scans")
    try:
        return Counters(*(int((KSM / name).read_text()) for name in names))
    except OSError as error:
        raise PrerequisiteError(f"read {KSM}: {error.strerror}", "the kernel needs CONFIG_KSM") from error


def require() -> None:
    """Raise PrerequisiteError when KSM is not there, or not to be changed."""
    if not os.access(KSM / "run", os.R_OK | os.W_OK):
        why = "the kernel has no KSM" if not KSM.is_dir() else "it cannot be written to"
        raise PrerequisiteError(f"turn KSM on by {KSM / 'run'}: {why}", "run as root, on a kernel with CONFIG_KSM")


@contextmanager
def merging(lease: Path) -> Iterator[None]:
    """Within, the kernel merges pages of processes that allow it; ``lease`` is the run's directory.

    Afterwards it does what it did before. Raises PrerequisiteError where it cannot, UsageError when another run does.
    """
    with change_settings({KSM / "pages_to_scan": str(PAGES_TO_SCAN), KSM / "run": "1"}, lease):
        yield


def wait_for_scans(scans: int, timeout_s: float) -> Counters:
    """Wait until so many further full scans are over: a page must be met twice before it is merged.

    Raises TestbedError when the time is over.
    """
    before, began_s = read_counters().full_scans, time.monotonic()
    while (now := read_counters()).full_scans < before + scans:
        if is_over(began_s, timeout_s):
            done = now.full_scans - before
            raise TestbedError(
                f"wait for {scans} full scans of KSM: {done} in {scale(timeout_s):g} s",
                "give it more time, or fewer guests",
            )
        time.sleep(_POLL_S)
    return now
