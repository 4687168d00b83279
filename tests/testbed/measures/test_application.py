"""One application from request to ready, with real processes: phases, order, failures, and that nothing is left."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runtime.errors import TestbedError, WorkloadError
from testbed.interruption import Interrupted, raise_on_signals
from testbed.lab import Lab
from testbed.measures.application import Application, ready_timeout_s
from testbed.measures.context import RunContext
from testbed.platforms import registry
from testbed.platforms.protocol import Started
from tests.waiting import until

MakeContext = Callable[..., RunContext]


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def ready(context: RunContext, **changes: Any) -> dict[str, Any]:
    return {"ready": replace(context.settings.ready, **changes)}


def test_a_start_has_its_phases_in_order(make_context: MakeContext, platform: Any) -> None:
    context = make_context(web={"OPEN_AFTER_S": "0.2", "READY_AFTER_S": "0.5"})
    with Application(context, platform, 0, "t001") as application:
        timeline = application.timeline
        pids = platform.pids()
        assert len(pids) == 2
    web, store = timeline.services["web"], timeline.services["store"]
    assert list(timeline.services) == ["store", "web"]
    assert timeline.requested_ns <= store["request"] < store["first_process"] <= web["request"]
    assert web["request"] < web["created"] <= web["first_process"] < web["port_open"] < timeline.ready_ns
    assert timeline.port_open_ns == web["port_open"]
    assert store["port_open"] < web["port_open"]
    assert 0.2 < (web["port_open"] - web["created"]) / 1e9 < 0.45
    assert 0.5 < (timeline.ready_ns - web["created"]) / 1e9 < 0.75
    assert gone(pids)


def test_an_application_is_ready_with_the_last_of_its_ports(make_context: MakeContext, platform: Any) -> None:
    """A client answers its ready check though the database that it is there for starts for seconds yet."""
    with Application(make_context(store={"OPEN_AFTER_S": "0.6"}), platform, 0, "t001") as application:
        timeline = application.timeline
    web, store = timeline.services["web"], timeline.services["store"]
    assert timeline.port_open_ns == web["port_open"] < store["port_open"] == timeline.ready_ns


def test_services_start_in_dependency_order_and_stop_in_reverse(make_context: MakeContext, platform: Any) -> None:
    with Application(make_context(), platform, 0, "t001"):
        pass
    assert platform.events == [("start", "store"), ("start", "web"), ("stop", "web"), ("stop", "store")]


def test_ports_are_asked_once_the_first_process_runs(make_context: MakeContext, platform: Any) -> None:
    platform.first_process_delay_s["web"] = 0.4
    with Application(make_context(), platform, 0, "t001") as application:
        web, store = (application.timeline.services[name] for name in ("web", "store"))
    assert web["first_process"] <= web["port_open"]
    assert store["port_open"] < web["first_process"], "waiting for one service must not hide another's port"


def test_an_application_that_never_gets_ready_fails_with_its_consoles(make_context: MakeContext, platform: Any) -> None:
    context = make_context(web={"READY_AFTER_S": "60"})
    context = replace(context, settings=replace(context.settings, **ready(context, timeout_s=0.5)))
    began_s = time.monotonic()
    with pytest.raises(WorkloadError) as raised, Application(context, platform, 0, "t001"):
        pass
    assert 0.5 <= time.monotonic() - began_s < 2
    assert raised.value.exit_code == 6
    assert "small on local: not ready after 0.5 s" in raised.value.message
    assert "HTTP status 503" in raised.value.message
    lines = raised.value.hint.splitlines()
    assert sum("line 29" in line for line in lines) == 2, "both consoles"
    assert any("listening" in line for line in lines)
    assert not any("line 9" in line for line in lines), "20 lines each"
    assert platform.pids() == []


def test_a_process_that_ends_fails_the_start_at_once(make_context: MakeContext, platform: Any) -> None:
    context = make_context(web={"OPEN_AFTER_S": "60"}, store={"EXIT_AFTER_S": "0.2"})
    began_s = time.monotonic()
    with pytest.raises(WorkloadError, match="first process of store has ended"), Application(context, platform, 0, "t"):
        pass
    assert time.monotonic() - began_s < 2
    assert platform.pids() == []


def test_a_service_that_cannot_start_takes_the_others_down(make_context: MakeContext, platform: Any) -> None:
    platform.refused.add("web")
    with pytest.raises(TestbedError, match="refused"), Application(make_context(), platform, 0, "t001"):
        pass
    assert platform.events == [("start", "store"), ("start", "web"), ("stop", "store")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_waiting_undoes_all(make_context: MakeContext, platform: Any, number: int) -> None:
    context = make_context(web={"OPEN_AFTER_S": "60"})
    pids: list[int] = []

    def interrupt() -> None:
        until(lambda: len(platform.pids()) == 2)
        pids.extend(platform.pids())
        os.kill(os.getpid(), number)

    with pytest.raises(Interrupted), raise_on_signals():
        threading.Timer(0.4, interrupt).start()
        with Application(context, platform, 0, "t001"):
            pass
    assert len(pids) == 2
    assert gone(pids)


def test_an_error_within_the_context_stops_the_services(make_context: MakeContext, platform: Any) -> None:
    with pytest.raises(SystemExit), Application(make_context(), platform, 0, "t001"):
        pids = platform.pids()
        raise SystemExit(1)
    assert len(pids) == 2 and gone(pids)


def test_the_services_of_a_shared_instance_have_phases_of_their_own() -> None:
    started = Started({"request": 1, "created": 2, "first_process": 5}, {"store": {"first_process": 4}})
    assert started.of("store") == {"request": 1, "created": 2, "first_process": 4}
    assert started.of("web")["first_process"] == 5


def test_a_slow_host_gives_every_platform_more_time(slow_host: float, tmp_path: Path) -> None:
    for name in ("container", "libvirt-lxc"):
        assert registry.create(name, "run", tmp_path, Lab()).patience == slow_host


def test_virtual_machines_get_their_own_time_to_be_ready(make_context: MakeContext, platform: Any) -> None:
    settings = make_context().settings
    assert ready_timeout_s(settings.ready, platform) == 5
    platform.virtual = True
    assert ready_timeout_s(settings.ready, platform) == 10
