"""A tuned guest, for real: where its virtual processors run, and which processor it sees."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.spec import Process, Resources, Spec
from testbed.lab import Lab
from testbed.platforms.protocol import Instance
from testbed.platforms.vm import VmPlatform
from testbed.qemu.pinning import make_pinning
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.vm]

TIMEOUT_S = 60.0
SHOW = "busybox grep -c ^processor /proc/cpuinfo; echo shown; exec sleep 600"


def pinned_threads(platform: VmPlatform, instance: Instance) -> list[set[int]]:
    """What each thread of the guest's QEMU may run on, of those that may not run everywhere."""
    everywhere = os.sched_getaffinity(0)
    tasks = [int(task.name) for pid in platform.cgroup(instance).pids() for task in Path(f"/proc/{pid}/task").iterdir()]
    return [allowed for task in tasks if (allowed := os.sched_getaffinity(task)) != everywhere]


def test_each_virtual_processor_has_one_of_the_hosts(
    make_vm: Callable[[str], VmPlatform], layer: Path, tmp_path: Path
) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("on one processor everything is pinned to it")
    platform = make_vm("vm-tuned")
    assert "pinned" in str(platform.facts()["processors"])
    spec = Spec(Process(args=("sh", "-c", SHOW)), (str(layer),), "boxed", Resources(128 << 20, 1.0, 24))
    guests = [Instance(f"a{number}-web", number, {"web": spec}, tmp_path / f"{number}.log") for number in range(2)]
    with Lab():
        for one in guests:
            platform.start(one)
        for one in guests:
            platform.started(one, TIMEOUT_S)
        until(lambda: all("shown" in one.log.read_text() for one in guests), TIMEOUT_S, lambda: guests)
        first, second = (pinned_threads(platform, one) for one in guests)
        (expected,) = make_pinning((), 1).processors
        assert first == [{expected}], "its one processor, and none of QEMU's other threads"
        assert second == [set(make_pinning((expected,), 1).processors)] and second != first
        for one in guests:
            platform.stop(one)
        platform.start(guests[0])
        platform.started(guests[0], TIMEOUT_S)
        assert pinned_threads(platform, guests[0]) == first, "a processor is free again when its guest has ended"
        platform.stop(guests[0])
