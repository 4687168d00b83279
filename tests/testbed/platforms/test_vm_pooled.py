"""Machines that wait in a pool for real: booted before the request, started by a word, replaced when one has died."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.errors import TestbedError, WorkloadError
from runtime.spec import Process, Resources, Spec
from testbed.lab import Lab
from testbed.platforms.pooled_vm import PooledVmPlatform
from testbed.platforms.protocol import Instance, Pooling
from testbed.platforms.vm import VmPlatform
from tests.testbed.platforms.answers import fetch
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.vm]
TIMEOUT_S = 60.0


def kill_emulator(platform: VmPlatform, one: Instance) -> None:
    for pid in platform.cgroup(one).pids():
        os.kill(pid, signal.SIGKILL)
    until(lambda: not platform.cgroup(one).pids())


def test_a_guest_boots_before_it_is_requested_and_starts_at_a_word(
    make_vm: Callable[[str], VmPlatform], layer: Path, tmp_path: Path
) -> None:
    platform = make_vm("vm-pooled")
    assert isinstance(platform, PooledVmPlatform) and isinstance(platform, Pooling)
    with Lab() as lab:
        link = lab.link(0, 0)
        serve = Process(("sh", "-c", "echo hello > /index.html; exec busybox httpd -f -p 80 -h /"), ("PATH=/bin",))
        spec = Spec(serve, (str(layer),), "web", Resources(128 << 20, 1.0, 24), link)
        one = Instance("a0-web", 0, {"web": spec}, tmp_path / "web.log")
        with pytest.raises(TestbedError, match="none waits in the pool"):
            platform.start(one)
        first = platform.fill(one)
        assert first.memory_bytes > 32 << 20 and first.replaced == 0
        assert platform.fill(one).took_ns == first.took_ns, "it waits already"
        assert platform.alive(one) and "testbed: exec" not in one.log.read_text()
        kill_emulator(platform, one)
        until(lambda: not platform.alive(one))
        assert platform.fill(one).replaced == 1
        platform.start(one)
        phases = platform.started(one, TIMEOUT_S).phases
        assert phases["request"] == phases["created"] < phases["first_process"]
        assert phases["first_process"] - phases["request"] < first.took_ns / 2
        assert fetch(f"http://{link.address.ip}/", TIMEOUT_S) == "hello\n"
        platform.stop(one)
        assert not platform.cgroup(one).exists()
        platform.fill(one)
        kill_emulator(platform, one)
        until(lambda: not platform.alive(one))
        with pytest.raises(WorkloadError, match="it ended while it waited in the pool"):
            platform.start(one)
        assert not platform.cgroup(one).exists()
