"""Waiting for what comes true soon, on the host and inside guests of checks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(true: Callable[[], T], timeout_s: float = 20.0, told: Callable[[], object] = lambda: "") -> T:
    """What ``true`` returns, once that is true. Raises AssertionError, with what is ``told`` then, when it is late."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := true()):
        assert time.monotonic() < deadline_s, f"it did not come true within {timeout_s} s: {told()}"
        time.sleep(0.01)
    return found
