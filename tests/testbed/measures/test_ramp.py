"""What limits a ramp, and how it grows: with numbers, and with real processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from testbed.measures.application import Application
from testbed.measures.context import RunContext
from testbed.measures.ramp import (
    CopyLoad,
    Ramp,
    RampSettings,
    application_bytes,
    count_most_applications,
    find_limit,
)

MakeContext = Callable[..., RunContext]
MIB = 1 << 20


def test_memory_for_the_next_application_and_the_host_must_be_there() -> None:
    need = 384 * MIB
    assert find_limit(4, cap=12, available_bytes=896 * MIB, need_bytes=need) is None
    short = find_limit(4, cap=12, available_bytes=895 * MIB, need_bytes=need)
    assert short is not None and short.outcome == "ok"
    assert short.reason == (
        "memory: 895 MiB available, less than 384 MiB for the next application and 512 MiB in reserve"
    )
    none_at_all = find_limit(0, cap=12, available_bytes=100 * MIB, need_bytes=need)
    assert none_at_all is not None and none_at_all.outcome == "failed"
    capped = find_limit(12, cap=12, available_bytes=10_000 * MIB, need_bytes=need)
    assert capped is not None and capped.reason == "cap: 12 applications"


def test_the_bridge_limits_the_cap(make_context: MakeContext) -> None:
    assert count_most_applications(3, 2) == 3
    assert count_most_applications(10_000, 2) == 511
    assert count_most_applications(10_000, 1) == 1023, "a shared instance needs one port"
    assert application_bytes(make_context().scenario) == 128 * MIB


@pytest.mark.root
def test_copies_are_added_in_strides_and_those_without_a_load_have_none(
    make_context: MakeContext, platform: Any
) -> None:
    context = make_context()
    seen: list[int] = []
    settings = RampSettings(
        cap=4,
        settle_s=0.0,
        window_s=0.3,
        offer=lambda copy: None if copy == 1 else CopyLoad(20.0),
        grow=lambda running: running + 2,
    )

    def look(first: Application) -> None:
        seen.append(len(platform.pids()))

    with ExitStack() as applications:
        ramp = Ramp(context, platform, settings, applications, trial=1, block=1, first=look)
        stop = ramp.run()
    assert stop.reason.startswith("cap: 4 applications; undecided there")
    assert [point.applications for point in ramp.points] == [0, 2, 4] and ramp.within_slo == 4
    assert [point.requests for point in ramp.points] == [0, 6, 18], "one of two, and three of four, are asked"
    assert seen == [2], "once, with the first copy's two services"
    # Not of one another: in so short a window the kernel's ticks are coarser than what the generator takes.
    assert all(0 <= point.host_generator <= 1 and 0 <= point.host_utilisation <= 1 for point in ramp.points)
