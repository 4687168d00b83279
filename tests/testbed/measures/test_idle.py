"""What an idle application takes: of real processes, which sleep or do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from runtime.errors import WorkloadError
from testbed.measures.application import Application
from testbed.measures.context import RunContext
from testbed.measures.idle import Idle, make_metrics, watch_idle

MakeContext = Callable[..., RunContext]


@pytest.mark.root
def test_an_idle_application_holds_its_memory_and_takes_little_else(make_context: MakeContext, platform: Any) -> None:
    context = make_context(web={"HOLD_MIB": "24"})
    with Application(context, platform, 0, "idle") as application:
        idle = watch_idle(application, 0.3)
    assert 0.3 <= idle.elapsed_s < 3 and idle.cpu_s < 0.1
    assert idle.wakeups is not None and idle.wakeups < 50
    assert idle.cgroup_bytes > 24 << 20 and idle.pss_bytes > 24 << 20


@pytest.mark.root
def test_one_that_ends_meanwhile_is_told(make_context: MakeContext, platform: Any) -> None:
    context = make_context(web={"EXIT_AFTER_S": "1"})
    with (
        pytest.raises(WorkloadError, match="the first process of web has ended"),
        Application(context, platform, 0, "idle") as application,
    ):
        watch_idle(application, 1.5)


def test_figures_are_of_a_second_and_what_was_not_counted_is_absent() -> None:
    figures = {one.metric: one.value for one in make_metrics(Idle(2.0, 0.1, 40, 1 << 20, 1 << 19))}
    assert (figures["idle_cpu"], figures["idle_wakeups"], figures["idle_memory"]) == (0.05, 20.0, 1 << 20)
    assert "idle_wakeups" not in {one.metric for one in make_metrics(Idle(2.0, 0.1, None, 1, 1))}
