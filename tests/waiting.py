"""Waiting for what comes true soon, on the host and inside guests of checks."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(true: Callable[[], object], timeout_s: float = 20.0, told: Callable[[], object] = lambda: "") -> None:
    """Return once ``true`` says so. Raises AssertionError, with what is ``told`` then, when it has not in time."""
    deadline_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline_s, f"it did not come true within {timeout_s} s: {told()}"
        time.sleep(0.01)
