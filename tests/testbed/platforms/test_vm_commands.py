"""Commands beside the workloads of guests, through a port: in the only service of one, and in one of several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.errors import UsageError, WorkloadError
from runtime.launcher import StepError, frames
from runtime.spec import Process, Resources, Spec
from testbed.lab import Lab
from testbed.platforms.protocol import Instance
from testbed.platforms.vm import VmPlatform
from testbed.qemu.port import Outcome, Port

pytestmark = [pytest.mark.root, pytest.mark.vm]
TIMEOUT_S = 60.0


class Written(Outcome):
    """The outcome of a program, and what it has written."""

    def __init__(self, port: Port, platform: VmPlatform, one: Instance, service: str, script: str) -> None:
        self.output = b""
        process = replace(one.specs[service].process, args=("sh", "-c", script))
        super().__init__(port, platform.plan_command(one, service, process))

    def _take(self, number: int, kind: int, content: bytes) -> None:
        if kind == frames.OUTPUT:
            self.output += content
        super()._take(number, kind, content)


@pytest.mark.parametrize("kind", ["vm", "vm-micro", "vm-pod", "vm-containers"])
def test_commands_run_where_their_service_does(
    make_vm: Callable[..., VmPlatform], layer: Path, tmp_path: Path, kind: str
) -> None:
    platform = make_vm(kind, commands=True)
    assert platform.executes
    names = ("store", "web") if platform.shared else ("web",)
    with Lab() as lab:
        links = [lab.link(0, 0 if platform.one_address else number) for number in range(len(names))]
        sysctls = () if kind == "vm-pod" else (("net.core.somaxconn", "77"),)
        specs = {
            name: Spec(Process(("sleep", "1000")), (str(layer),), name, Resources(128 << 20, 0.5, 12), link)
            for name, link in zip(names, links, strict=True)
        }
        specs = {name: replace(spec, sysctls=sysctls) for name, spec in specs.items()}
        one = Instance("a0-web", 0, specs, tmp_path / "log")
        platform.start(one)
        platform.started(one, TIMEOUT_S)
        port = platform.port(one)
        script = "hostname; id -u; busybox tr '\\0' ' ' </proc/1/cmdline; echo; cat /proc/self/cgroup; ls /; exit 9"
        for name in names:
            written = Written(port, platform, one, name, script)
            assert written.wait(TIMEOUT_S) == 9
            host, user, first, cgroup, *rest = written.output.decode().splitlines()
            assert (host, user, first.strip(), cgroup) == (name, "0", "sleep 1000", "0::/")
            assert "bin" in rest and "lower" not in rest
            assert (
                platform.execute(one, name, ("sh", "-c", "busybox ip -o addr show eth0 | busybox grep -q ."), 20) == 0
            )
            if sysctls:
                setting = 'test "$(cat /proc/sys/net/core/somaxconn)" = 77'
                assert platform.execute(one, name, ("sh", "-c", setting), 20) == 0
            many = "i=0; while [ $i -lt 20 ]; do sleep 1 & i=$((i+1)); done"
            assert platform.execute(one, name, ("sh", "-c", many), 30) != 0, "its task limit holds"
        assert platform.execute(one, "web", ("sleep", "100"), 1.2) is None  # by then it has its tasks back
        with pytest.raises(StepError, match=r"nowhere .*No such file"):
            platform.execute(one, "web", ("nowhere",), 10)
        large = Written(port, platform, one, "web", "busybox dd if=/dev/zero bs=64k count=16 2>/dev/null")
        assert large.wait(TIMEOUT_S) == 0 and len(large.output) == 1 << 20
        assert platform.alive(one)
        last = Outcome(port, platform.plan_command(one, "web", replace(specs["web"].process, args=("sleep", "100"))))
        platform.stop(one)
        with pytest.raises(WorkloadError, match="has ended meanwhile"):
            last.wait(10)
        with pytest.raises(UsageError, match="it does not run"):
            platform.execute(one, "web", ("true",), 1)


def test_a_guest_that_nobody_asks_has_no_port(make_vm: Callable[..., VmPlatform], tmp_path: Path) -> None:
    platform = make_vm("vm")
    assert not platform.executes and platform.facts()["commands"] is None
    with pytest.raises(UsageError, match="vm has no port for that"):
        platform.port(Instance("a0-web", 0, {}, tmp_path / "log"))
