"""Footprints with intervals, as a run of six trials gives them, and fleets of them."""

from __future__ import annotations

import pytest

from testbed.footprints import Footprint
from testbed.statistics import Estimate

MIB, GIB = 2**20, 2**30


def estimate(value: float, spread: float = 0.1, n: int = 6) -> Estimate:
    """An estimate whose interval is its value give or take a part of it."""
    return Estimate(value, value * (1 - spread), value * (1 + spread), n, 0.97 if n >= 6 else 0.0)


def footprint(
    platform: str, memory_mib: float, cpu_ms: float, spread: float = 0.1, n: int = 6, emulated: bool = False
) -> Footprint:
    return Footprint(
        platform,
        f"{platform} (KVM)" if platform.startswith("vm") else platform,
        emulated,
        memory_first=estimate(2 * memory_mib * MIB, spread, n),
        memory_further=estimate(memory_mib * MIB, spread, n),
        cpu_per_request=estimate(cpu_ms / 1e3, spread, n),
        cpu_idle=estimate(0.001 if platform == "container" else 0.01, spread, n),
        start_s=estimate(1.0, spread, n),
        instances=2,
        held=(12,),
        capped=True,
    )


@pytest.fixture
def container() -> Footprint:
    return footprint("container", 44, 1.0)


@pytest.fixture
def machine() -> Footprint:
    return footprint("vm", 290, 1.3)
