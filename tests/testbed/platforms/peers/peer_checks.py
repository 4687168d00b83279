"""What is checked of peers on a server with systemd, on cgroup v2 alone. It runs inside a guest, not under pytest.

Each function is a check; one that fails raises. The console gets a line for each, which
tests/testbed/platforms/peers/test_peers_guest.py reads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from runtime.cgroups import Cgroup, hierarchies
from runtime.lease import CGROUP_ROOT, lease
from runtime.spec import Process, Resources, Spec
from testbed.lab import Lab
from testbed.platforms.peers.names import PEERS
from testbed.platforms.peers.platform import PeerPlatform
from testbed.platforms.peers.sweep import find_directories
from testbed.platforms.protocol import Instance
from tests.runtime.guest_checks import work_off
from tests.waiting import until

BUSYBOX = "/layers/busybox"
NAMES = ("process", "chroot", "bwrap", "nspawn", "lxc", "crun", "runc", "podman")
# Everything in the guest is emulated.
TIMEOUT_S = 60.0
TASKS = 24


def the_host_is_what_it_should_be() -> None:
    assert hierarchies().mode == "v2"
    assert os.readlink("/proc/1/exe").endswith("systemd")


def serve(name: str) -> None:
    """The whole platform: a workload with all limits at an address, in its cgroup, and nothing left behind."""
    lab, run = Lab(), f"checks-{name}"
    with lease(run) as scratch:
        platform = PeerPlatform(PEERS[name], run, scratch, lab)
        with ExitStack() as undo:
            undo.callback(platform.close)
            platform.prepare_program()
            undo.enter_context(lab)
            process = Process(
                ("sh", "-c", "cat /proc/self/attr/current; grep Seccomp: /proc/self/status; exec sleep 99"),
                ("PATH=/bin",),
            )
            spec = Spec(process, (BUSYBOX,), "boxed", Resources(64 << 20, 0.5, TASKS), lab.link(0, 0))
            one = Instance("a0-web", 0, {"web": spec}, scratch / "log")
            undo.callback(platform.stop, one)
            platform.start(one)
            platform.started(one, TIMEOUT_S)
            until(lambda: "Seccomp" in one.log.read_text(), TIMEOUT_S, one.log.read_text)
            assert ("Seccomp:\t2" in one.log.read_text()) == (name not in ("process", "chroot"))
            assert "unconfined" in one.log.read_text(), "AppArmor has a profile for some of them, and none for ours"
            assert platform.alive(one)
            cgroup, workload = platform.cgroup(one), Cgroup(platform._running[one.name].workload)
            assert workload.file("memory", "", "memory.max").read_text().strip() == str(64 << 20)
            assert workload.file("cpu", "", "cpu.max").read_text().split()[0] == "50000"
            assert workload.file("pids", "", "pids.max").read_text().strip() == str(TASKS)
            assert set(workload.pids()) and set(workload.pids()) <= set(cgroup.pids())
            assert cgroup.memory_bytes() >= platform.overhead(one).memory_bytes
        leased = set(Cgroup(f"{CGROUP_ROOT}/{run}").directories())
        assert [path for path in find_directories(f"{CGROUP_ROOT}/{run}") if path not in leased] == []
        assert run not in Path("/proc/self/mountinfo").read_text()


def _check(name: str) -> Callable[[], None]:
    check = partial(serve, name)
    check.__name__ = f"{name}_serves_within_its_limits"  # type: ignore[attr-defined]
    return check


CHECKS: tuple[Callable[[], None], ...] = (the_host_is_what_it_should_be, *map(_check, NAMES))

if __name__ == "__main__":
    work_off(CHECKS)
