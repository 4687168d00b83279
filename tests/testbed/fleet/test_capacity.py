"""How many copies a host holds, and what binds."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from runtime.errors import UsageError
from testbed.fleet.capacity import CopiesQuestion, find_copies
from testbed.fleet.demands import Fit, Host
from testbed.footprints import Footprint
from tests.testbed.fleet.conftest import GIB, footprint

PLAN = CopiesQuestion(Host(64, 512 * GIB), Fit(headroom=0.0), rate_per_s=5.0, cpu_cv=0.0, restart_s=1e6, bridges=100)


def test_memory_binds_where_copies_are_large() -> None:
    copies = find_copies(replace(PLAN, host=Host(64, 10.25 * GIB)), footprint("vm", 256, 1.0))
    assert copies.by["memory"] == copies.copies.value == 40 and copies.binds == "memory"  # 512 MiB, then 256 each
    assert copies.memory == pytest.approx(1.0) and copies.copies.is_interval
    assert copies.copies.low is not None and copies.copies.low < 40


def test_cpu_binds_where_requests_are_dear() -> None:
    copies = find_copies(PLAN, footprint("vm", 44, 100.0))
    assert copies.binds == "CPU" and copies.by["CPU"] == int(64 / 0.51)
    spread = find_copies(replace(PLAN, cpu_cv=0.7), footprint("vm", 44, 100.0))
    assert spread.by["CPU"] < copies.by["CPU"]


def test_ports_bind_on_one_bridge() -> None:
    copies = find_copies(replace(PLAN, bridges=1), footprint("container", 1, 0.1))
    assert copies.binds == "ports" and copies.by["ports"] == 511  # 1,022 for copies of two instances


def test_a_start_storm_binds_where_all_must_be_back_soon(container: Footprint) -> None:
    slow = replace(container, start_s=replace(container.start_s, value=30.0))  # type: ignore[type-var]
    copies = find_copies(replace(PLAN, restart_s=60.0), slow)
    assert copies.binds == "starts" and copies.by["starts"] == 128
    assert "starts" not in find_copies(PLAN, replace(container, start_s=None)).by


def test_the_model_stands_beside_the_runs_own_ramps(container: Footprint) -> None:
    own = Host(2, 24 * GIB)
    assert (check := find_copies(PLAN, container, own).check) is not None and check.verdict == "capped"
    broke = find_copies(PLAN, replace(container, capped=False), own).check
    assert broke is not None and broke.verdict == "too many" and broke.measured == (12,)
    agrees = find_copies(PLAN, replace(container, capped=False, held=(broke.model - 10,)), own).check
    assert agrees is not None and agrees.verdict == "agrees"
    assert find_copies(PLAN, container).check is None


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (replace(PLAN, host=Host(0, GIB)), "a host of 0 processors"),
        (replace(PLAN, fit=Fit(headroom=1.0)), "leaves no room"),
        (replace(PLAN, rate_per_s=0.0), "0 requests/s"),
        (replace(PLAN, bridges=0), "0 bridges"),
        (replace(PLAN, host=Host(64, 0.01 * GIB)), "no copy fits on a host of 64 processors and 0.01 GiB"),
        (replace(PLAN, rate_per_s=1e6), "CPU is short"),
    ],
)
def test_what_cannot_be_planned_is_refused(container: Footprint, plan: CopiesQuestion, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        find_copies(plan, container)
