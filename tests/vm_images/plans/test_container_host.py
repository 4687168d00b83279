"""The plan of a guest that is a host of containers."""

from __future__ import annotations

from runtime import network
from runtime.plan import steps as s
from runtime.plan.encode import encode
from runtime.plan.explain import explain
from vm_images.plans.container_host import (
    BRIDGE,
    BRIDGE_INDEX,
    CONTROLLERS,
    DESCRIPTION,
    ContainerHost,
    container_host_plan,
)
from vm_images.plans.guest import FIRST_USERSPACE

MAC = "02:02:0a:4d:01:0a"
MODULES = ("/modules/virtio.ko", "/modules/bridge.ko")


def plan(mac: str | None = MAC) -> s.Plan:
    host = ContainerHost(("base", "host"), ("python3", "-m", "program"), "/packages", "host", mac, '{"a": 1}')
    return container_host_plan(host, MODULES)


def test_it_begins_with_the_line_that_is_timed_and_ends_as_the_program() -> None:
    steps = plan().child
    assert steps[0] == s.LogLine(FIRST_USERSPACE)
    last = steps[-1]
    assert isinstance(last, s.Exec) and last.args == ("python3", "-m", "program")
    assert [step.path for step in steps if isinstance(step, s.LoadModule)] == list(MODULES)
    assert s.Write(DESCRIPTION.lstrip("/"), ('{"a": 1}',), create=True, inside=True) in steps


def test_the_network_card_is_a_port_without_an_address() -> None:
    sent = [step.message for step in plan().child if isinstance(step, s.Netlink)]
    bridge, port = network.create_bridge(BRIDGE, MAC, BRIDGE_INDEX), network.make_port("eth0", BRIDGE_INDEX)
    assert sent == [network.loopback_up(), bridge, port]
    assert len([step for step in plan(None).child if isinstance(step, s.Netlink)]) == 1


def test_every_controller_is_passed_on_once_cgroup_v2_is_mounted_over_sys() -> None:
    steps = plan().child
    targets = [step.target for step in steps if isinstance(step, s.Mount)]
    assert targets.index("sys") < targets.index("sys/fs/cgroup")
    passed = [step.data[0] for step in steps if isinstance(step, s.Write) and step.path.endswith("subtree_control")]
    assert passed == [f"+{name}" for name in CONTROLLERS]


def test_it_can_be_encoded_and_explained() -> None:
    assert encode(plan()) == encode(plan())
    assert "eth0 is a port of br0" in explain(plan())
