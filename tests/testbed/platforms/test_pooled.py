"""The platform of pooled containers for real: filled before the request, started once, replaced when one has died."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import TestbedError, WorkloadError
from runtime.spec import Process, Resources, Spec
from testbed.lab import Lab
from testbed.platforms.container import ContainerPlatform
from testbed.platforms.pooled import PooledPlatform
from testbed.platforms.protocol import Instance, Pooling
from tests.testbed.platforms.answers import fetch
from tests.waiting import until

pytestmark = pytest.mark.root


class Pool:
    """A platform in a lab, and what it runs: a server of files."""

    def __init__(self, platform: PooledPlatform, lab: Lab, layer: Path, folder: Path) -> None:
        self.platform, self.lab, self.layer, self.folder = platform, lab, layer, folder

    def instance(self, application: int = 0) -> Instance:
        serve = Process(args=("busybox", "httpd", "-f", "-p", "80", "-h", "/srv"), env=("PATH=/bin",))
        link = self.lab.link(application, 0)
        spec = Spec(serve, (str(self.layer),), "web", Resources(64 << 20, 1.0, 24), link)
        return Instance(f"a{application}", application, {"web": spec}, self.folder / f"a{application}.log")

    def waiting_pid(self, one: Instance) -> int:
        (pid,) = self.platform.cgroup(one).pids()
        return pid


@pytest.fixture
def pool(busybox_layer: Path, cgroup_parent: str, tmp_path: Path) -> Iterator[Pool]:
    (busybox_layer / "srv").mkdir()
    (busybox_layer / "srv" / "index.html").write_text("served")
    with Lab() as lab:
        platform = PooledPlatform(cgroup_parent.rpartition("/")[2], lab)
        yield Pool(platform, lab, busybox_layer, tmp_path)
        platform.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def ask(one: Instance) -> str:
    assert one.spec.link is not None
    return fetch(f"http://{one.spec.link.address.ip}/", 20)


def test_one_is_filled_before_it_is_started_and_serves_once(pool: Pool) -> None:
    assert isinstance(pool.platform, Pooling)
    one = pool.instance()
    filled = pool.platform.fill(one)
    assert filled.took_ns > 0 and filled.memory_bytes > 0 and filled.replaced == 0
    pid = pool.waiting_pid(one)
    assert pool.platform.fill(one).took_ns == filled.took_ns and pool.waiting_pid(one) == pid, "it waits already"
    pool.platform.start(one)
    phases = pool.platform.started(one, 1).phases
    assert phases["request"] == phases["created"] < phases["first_process"]
    assert ask(one) == "served"
    assert pid in pool.platform.cgroup(one).pids(), "beside one that it has forked to answer, for a moment"
    pool.platform.stop(one)
    assert not pool.platform.cgroup(one).exists()
    with pytest.raises(TestbedError, match="none waits in the pool"):
        pool.platform.start(one)


def test_containers_that_start_cold_beside_it_have_other_veths(pool: Pool, cgroup_parent: str) -> None:
    """Each platform counted its own once: the second one's was there already."""
    beside = ContainerPlatform(cgroup_parent.rpartition("/")[2], pool.lab)
    try:
        for application in range(2):
            beside.start(pool.instance(application))
        pool.platform.fill(pool.instance(2))
    finally:
        beside.close()


def test_one_that_died_is_replaced_when_the_pool_is_filled(pool: Pool) -> None:
    one = pool.instance()
    pool.platform.fill(one)
    pid = pool.waiting_pid(one)
    kill_waiting(pid)
    assert pool.platform.fill(one).replaced == 1
    assert pool.waiting_pid(one) != pid
    pool.platform.start(one)
    assert ask(one) == "served"


def test_one_that_died_after_the_pool_was_filled_is_an_error_and_no_slow_start(pool: Pool) -> None:
    one = pool.instance()
    pool.platform.fill(one)
    kill_waiting(pool.waiting_pid(one))
    with pytest.raises(WorkloadError, match="it ended while it waited in the pool"):
        pool.platform.start(one)
    pool.platform.stop(one)
    assert not pool.platform.cgroup(one).exists()
    pool.platform.fill(one)
    pool.platform.start(one)
    assert ask(one) == "served"


def test_what_waits_or_runs_at_the_end_is_ended(pool: Pool) -> None:
    """The fixtures see that the platform has left no process and no cgroup."""
    waiting, running = pool.instance(0), pool.instance(1)
    for one in (waiting, running):
        pool.platform.fill(one)
    pool.platform.start(running)
    assert all(pool.platform.cgroup(one).exists() for one in (waiting, running))


def kill_waiting(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    until(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG))
