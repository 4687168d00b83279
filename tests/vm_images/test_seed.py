"""The seed: what a stock system is told of the one instance that it is."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from msgspec.structs import replace

from runtime.plan.encode import encode
from runtime.spec import Link, Process, Resources, Spec
from tests.vm_images.test_iso9660 import read
from vm_images.plans.unit import unit_plan
from vm_images.seed import meta_data, network_config, seed, unit, user_data

LINK = Link(IPv4Interface("10.77.1.10/16"), "02:00:0a:4d:01:0a", IPv4Address("10.77.0.1"))
SPEC = Spec(Process(("true",)), ("/layer",), "web", Resources(256 << 20, 1.0, 128), LINK, (("redis", "10.77.1.9"),))


def settings(text: str) -> dict[str, str]:
    """The assignments of a unit; none of ours comes twice."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def test_the_unit_has_the_limits_that_are_not_the_machines() -> None:
    found = settings(unit(SPEC))
    assert (found["MemoryMax"], found["TasksMax"]) == (str(256 << 20), "128")
    assert not {"MemoryMax", "TasksMax"} & set(settings(unit(replace(SPEC, resources=Resources()))))


def test_the_machine_ends_with_the_workload() -> None:
    found = settings(unit(SPEC))
    assert (found["SuccessAction"], found["FailureAction"]) == ("poweroff-force", "poweroff-force")
    assert "testbed: exit status $EXIT_STATUS" in found["ExecStopPost"]


def test_cloud_init_writes_and_starts_the_unit() -> None:
    head, _, text = user_data(SPEC).partition("\n")
    document: dict[str, Any] = json.loads(text)
    assert head == "#cloud-config"
    (file,) = document["write_files"]
    assert file["content"] == unit(SPEC)
    assert document["runcmd"][-1] == ["systemctl", "start", file["path"].rpartition("/")[2]]


def test_the_card_is_found_by_its_address() -> None:
    card = json.loads(network_config(LINK))["ethernets"]["eth0"]
    assert card["match"] == {"macaddress": LINK.mac}
    assert card["addresses"] == ["10.77.1.10/16"]
    assert card["routes"] == [{"to": "default", "via": "10.77.0.1"}]
    without = replace(LINK, gateway=None)
    assert "routes" not in json.loads(network_config(without))["ethernets"]["eth0"]
    assert json.loads(network_config(None))["ethernets"] == {}


def test_each_instance_is_another_machine() -> None:
    assert json.loads(meta_data("run-a0", "web")) == {"instance-id": "run-a0", "local-hostname": "web"}
    assert seed(SPEC, "run-a0", b"launcher") != seed(SPEC, "run-a1", b"launcher")


def test_the_seed_has_what_cloud_init_and_the_unit_look_for() -> None:
    files = read(seed(SPEC, "run-a0", b"launcher"))
    assert sorted(files) == ["launcher", "meta-data", "network-config", "plan", "user-data"]
    assert files["plan"] == encode(unit_plan(SPEC))
    assert files["launcher"] == b"launcher"
    started = settings(unit(SPEC))["ExecStart"].split()
    assert [path.rpartition("/")[2] for path in started] == ["launcher", "plan"]
