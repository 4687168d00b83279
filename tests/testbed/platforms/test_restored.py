"""Waiting for a guest to be idle before it is saved."""

from __future__ import annotations

import time

import pytest

from runtime import speed
from runtime.cgroups import Cgroup
from testbed.platforms.restored import await_idle


@pytest.mark.parametrize(
    ("host_is_slower", "uses", "idle"), [(1.0, 0.05, True), (1.0, 0.3, False), (4.0, 0.3, True), (100.0, 0.9, False)]
)
def test_a_guest_is_idle_by_the_measure_of_its_host(
    monkeypatch: pytest.MonkeyPatch, host_is_slower: float, uses: float, idle: bool
) -> None:
    monkeypatch.setattr(speed, "factor", lambda: host_is_slower)
    monkeypatch.setattr(Cgroup, "cpu_usage_ns", lambda self: round(uses * time.monotonic_ns()))
    began_s = time.monotonic()
    await_idle(Cgroup("guest"), 0.9)
    assert (time.monotonic() - began_s < 0.9) == idle
