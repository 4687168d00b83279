"""What any platform whose services are processes of this host is held to when they share namespaces."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from runtime.spec import Process, Resources, Spec
from testbed.lab import Lab
from testbed.platforms.protocol import Instance, Platform
from tests.testbed.platforms.answers import fetch
from tests.waiting import until

FILES = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup"}
LENDER = ("sh", "-c", "echo lent > /dev/shm/memory; exec busybox sleep 1000")
SLEEPER = Process(args=("busybox", "sleep", "1000"), env=("PATH=/bin",))
SHM_BYTES = 4 << 20
BORROWER = ("sh", "-c", "busybox cp /dev/shm/memory /srv/; exec busybox httpd -f -p 80 -h /srv")
TIMEOUT_S = 60.0


def make_pair(lab: Lab, layer: Path, folder: Path, shared: tuple[tuple[str, str], ...]) -> tuple[Instance, Instance]:
    """A service ``app``, and ``side`` that shares with it, or with the caller, and serves what it finds in /dev/shm."""
    made = list[Instance]()
    for name, args, own in (("app", LENDER, ()), ("side", BORROWER, shared)):
        link = lab.link(0, len(made)) if "network" not in dict(own) else None
        process = Process(args=args, env=("PATH=/bin",))
        spec = Spec(process, (str(layer),), name, Resources(64 << 20, 1.0, 32), link, (("a", "10.77.9.9"),), shared=own)
        spec = spec if own else replace(spec, shm_bytes=SHM_BYTES)
        made.append(
            Instance(f"t-{name}", 0, {name: spec}, folder / f"{name}.log", None, {"app": "t-app"} if own else {})
        )
    return made[0], made[1]


def measure_shm(pid: int) -> int:
    """Return how much a process's /dev/shm holds, in bytes."""
    there = os.statvfs(f"/proc/{pid}/root/dev/shm")
    return there.f_blocks * there.f_frsize


def find_shared(one: int | str, other: int | str) -> set[str]:
    links = {kind: [os.readlink(f"/proc/{pid}/ns/{file}") for pid in (one, other)] for kind, file in FILES.items()}
    return {kind for kind, (first, second) in links.items() if first == second}


def check_pair(
    platform: Platform,
    pair: tuple[Instance, Instance],
    kinds: set[str],
    find_pid: Callable[[Instance], int],
    *,
    callers: bool = False,
) -> None:
    """Start both: they, or the second and the caller, share the namespaces of these kinds, and no others."""
    app, side = pair
    for one in pair:
        platform.start(one)
        if one is app:
            shm = Path(f"/proc/{_await_pid(platform, one, find_pid)}/root/dev/shm/memory")
            until(shm.exists)
            assert measure_shm(find_pid(app)) == SHM_BYTES
    pid = _await_pid(platform, side, find_pid)
    with_caller, with_app = find_shared(pid, "self"), find_shared(pid, find_pid(app))
    assert (with_caller if callers else with_app) == kinds, (with_caller, with_app)
    assert (with_app if callers else with_caller) == set(), (with_caller, with_app)
    at = next((str(one.spec.link.address.ip) for one in (side, app) if one.spec.link is not None), "")
    at = "127.0.0.1" if callers and "network" in kinds else at
    if "ipc" in kinds and not callers:
        assert fetch(f"http://{at}/memory", TIMEOUT_S) == "lent\n"
    else:
        until(lambda: "memory" in side.log.read_text() and platform.alive(side))
        assert fetch(f"http://{at}/index.html", TIMEOUT_S) == "served"
    assert set(platform.cgroup(side).pids()) and not {*platform.cgroup(side).pids()} & {*platform.cgroup(app).pids()}
    for one in (side, app):
        platform.stop(one)
        assert not platform.cgroup(one).exists()


def check_without_shm(platform: Platform, instance: Instance, find_pid: Callable[[Instance], int]) -> None:
    """Start a service with ``ipc: none``: IPC of its own, and no /dev/shm."""
    spec = replace(instance.spec, process=SLEEPER, shm=False, shm_bytes=None)
    instance = replace(instance, specs={"app": spec})
    platform.start(instance)
    pid = _await_pid(platform, instance, find_pid)
    assert "ipc" not in find_shared(pid, "self") and Path(f"/proc/{pid}/root/dev/null").exists()
    assert not Path(f"/proc/{pid}/root/dev/shm").exists()
    platform.stop(instance)


def _await_pid(platform: Platform, instance: Instance, find_pid: Callable[[Instance], int]) -> int:
    platform.started(instance, TIMEOUT_S)
    return find_pid(instance)
