"""All services in one machine: they share its address and kernel, and keep roots, names and limits of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.spec import Process, Resources, Spec
from testbed.lab import Lab
from testbed.platforms.protocol import Instance
from testbed.platforms.vm import VmPlatform

pytestmark = [pytest.mark.root, pytest.mark.vm]
TIMEOUT_S = 60.0
MIB = 1 << 20

# The store answers one question at a time on its port; the web asks it by name and by the loopback address.
STORE = "echo 'store is pid' $$; while :; do hostname | busybox nc -l -p 6379 || exit 9; done"
WEB = """
for address in store 127.0.0.1; do
    until answer=$(busybox nc $address 6379 </dev/null) && [ "$answer" ]; do sleep 0.1; done
    echo "$address is $answer"
done
echo "web is $(hostname) pid $$"
cat /proc/self/cgroup
i=0; while [ $i -lt 12 ]; do sleep 1 & i=$((i+1)); done 2>&1 | tail -1
exit 5
"""


def lines(log: Path, mark: str) -> list[str]:
    text = re.sub(r"^\[\d+\.\d+\] ", "", log.read_text(), flags=re.MULTILINE)
    return [line for line in text.splitlines() if mark in line]


def pod(layer: Path, lab: Lab, tmp_path: Path, web_bytes: int = 64 * MIB, **commands: str) -> Instance:
    link = lab.link(0, 0)
    hosts = tuple((name, str(link.address.ip)) for name in commands)
    limits = {"store": Resources(96 * MIB, 0.5, 8), "web": Resources(web_bytes, 0.5, 8)}
    return Instance(
        "a0-pod",
        0,
        {
            name: Spec(Process(("sh", "-c", command)), (str(layer),), name, limits[name], link, hosts)
            for name, command in commands.items()
        },
        tmp_path / "pod.log",
    )


def test_services_share_one_machine(make_vm: Callable[[str], VmPlatform], layer: Path, tmp_path: Path) -> None:
    platform = make_vm("vm-pod")
    assert platform.shared
    with Lab() as lab:
        one = pod(layer, lab, tmp_path, store=STORE, web=WEB)
        platform.start(one)
        started = platform.started(one, TIMEOUT_S)
        assert len(platform.cgroup(one).pids()) == 1, "one machine, charged once"
        assert platform.exit_status(one, TIMEOUT_S) == 5, "the first service to end takes the guest with it"
        assert not platform.alive(one)
        platform.stop(one)
    store, web = started.of("store"), started.of("web")
    assert store["first_userspace"] == web["first_userspace"] < store["first_process"]
    assert started.phases["first_process"] == max(store["first_process"], web["first_process"])
    said = lines(one.log, "")
    assert "store is store" in said and "127.0.0.1 is store" in said, one.log.read_text()
    assert "web is web pid 1" in said and "store is pid 1" in said, "each is the first of its own processes"
    assert "0::/" in said, "it is in a cgroup namespace of its own"
    assert any("fork" in line for line in said), "the task limit was not reached"
    assert "testbed: web: ended: 5" in said


def test_the_memory_limit_of_one_service_does_not_end_the_other(
    make_vm: Callable[[str], VmPlatform], layer: Path, tmp_path: Path
) -> None:
    greedy = "sleep 1; dd if=/dev/zero of=/dev/null bs=60M count=1; echo dd gave $?; sleep 1; exit 3"
    platform = make_vm("vm-pod")
    with Lab() as lab:
        one = pod(layer, lab, tmp_path, 40 * MIB, store="exec sleep 600", web=greedy)
        platform.start(one)
        platform.started(one, TIMEOUT_S)
        assert platform.exit_status(one, TIMEOUT_S) == 3
        platform.stop(one)
    assert lines(one.log, "dd gave") == ["dd gave 137"], "killed by its own cgroup's limit, not by the guest's"


def test_a_service_that_cannot_start_is_named(
    make_vm: Callable[[str], VmPlatform], layer: Path, tmp_path: Path
) -> None:
    platform = make_vm("vm-pod")
    with Lab() as lab:
        one = pod(layer, lab, tmp_path, store="exec sleep 600", web="true")
        web = one.specs["web"]
        broken = Spec(Process(("no-such-program",)), web.layers, "web", web.resources, web.link, web.hosts)
        one = Instance(one.name, 0, {**one.specs, "web": broken}, one.log)
        platform.start(one)
        assert platform.exit_status(one, TIMEOUT_S) == 125
        platform.stop(one)
    assert lines(one.log, "no-such-program")[-1].endswith(": exec no-such-program: ENOENT (2)")
    assert lines(one.log, ": ended: ") == ["testbed: web: ended: 125"]
