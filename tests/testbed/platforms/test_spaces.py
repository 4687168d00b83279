"""Which namespaces are shared on which platforms: what is refused by name, and containers of ours for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError, WorkloadError
from runtime.spec import Resources
from testbed.compose.model import Service
from testbed.lab import Lab
from testbed.platforms.container import ContainerPlatform
from testbed.platforms.registry import MACHINES, NAMES
from testbed.platforms.spaces import require_apart_on_host, require_spaces
from tests.testbed.platforms.shared_spaces import check_pair, check_without_shm, make_pair

GATE = Service("gate", Resources())
WEB = Service("web", Resources(), network_mode="service:gate")
OTHERS = Service("side", Resources(), pid="service:gate", ipc="service:gate")
HOSTED = Service("agent", Resources(), network_mode="host", pid="host", ipc="host", uts="host", cgroup="host")
BARE = Service("bare", Resources(), ipc="none")


def list_refused(service: Service) -> dict[str, set[str]]:
    """The platforms that refuse what a service shares, by its key."""
    try:
        require_spaces(NAMES, (GATE, service), MACHINES)
    except UsageError as error:
        lines = [line.split(": ") for line in error.message.splitlines()]
        return {line[0]: {*line[-1].removeprefix("not on ").split(", ")} for line in lines}
    return {}


def test_each_platform_says_what_it_cannot_share() -> None:
    containers = {"container", "crun", "runc", "youki", "podman", "docker"}
    assert {*NAMES} - list_refused(WEB)["web.network_mode"] == {*containers, "vm-pod", "vm-containers"}
    refused = list_refused(OTHERS)
    assert refused.keys() == {"side.pid", "side.ipc"}
    assert {*NAMES} - refused["side.pid"] == {*NAMES} - refused["side.ipc"] == {*containers, "vm-containers"}
    hosts = list_refused(HOSTED)
    assert {*NAMES} - hosts["agent.pid"] == {*containers, *MACHINES}, "machines have a refusal of their own"
    assert {*NAMES} - hosts["agent.network_mode"] == {*containers, *MACHINES} - {"docker"}
    assert {"vm", "vm-micro", "vm-pod", "container"}.isdisjoint(list_refused(BARE)["bare.ipc"])
    assert list_refused(GATE) == {}


def test_copies_would_meet_in_the_hosts_network() -> None:
    require_apart_on_host(("start", "utilisation"), (HOSTED, WEB))
    require_apart_on_host(("density",), (GATE, WEB))
    with pytest.raises(UsageError, match=r"agent: network_mode: host: copies would .* ports: density, consolidation"):
        require_apart_on_host(("start", "density", "consolidation"), (GATE, HOSTED))


@pytest.mark.root
@pytest.mark.parametrize("callers", [False, True])
def test_containers_share_them(busybox_layer: Path, run_name: str, tmp_path: Path, callers: bool) -> None:
    """In a measured run the lab, where the caller is, stands for the host."""
    (busybox_layer / "srv").mkdir()
    (busybox_layer / "srv" / "index.html").write_text("served")
    kinds = ("network", "pid", "ipc", *(("uts", "cgroup") if callers else ()))
    with Lab() as lab:
        platform = ContainerPlatform(run_name, lab)
        pair = make_pair(lab, busybox_layer, tmp_path, tuple((kind, "" if callers else "app") for kind in kinds))
        check_pair(platform, pair, {*kinds}, platform.first_pid, callers=callers)
        if callers:
            check_without_shm(platform, pair[0], platform.first_pid)
        else:
            with pytest.raises(WorkloadError, match="start t-side: app, whose namespaces it shares, has ended"):
                platform.start(pair[1])
            for one in pair:
                platform.start(one)
        platform.close()
        assert not any(platform.cgroup(one).exists() for one in pair), "the lender waits for those that it lends to"
