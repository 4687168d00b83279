"""Network devices of the host that move into a container with their addresses; the host is a namespace made here."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from tests.runtime.command_line import Runtime

pytestmark = pytest.mark.root


class Host:
    """A network namespace in the host's place, and the command line in it."""

    def __init__(self, name: str, runtime: Runtime) -> None:
        self.name, self.runtime = name, replace(runtime, inside=("ip", "netns", "exec", name))

    def ip(self, *words: str) -> Any:
        done = subprocess.run(["ip", "-netns", self.name, "-json", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout or "[]")

    def names(self) -> set[str]:
        return {link["ifname"] for link in self.ip("link")}


@pytest.fixture
def host(oci: Runtime, run_name: str) -> Iterator[Host]:
    subprocess.run(["ip", "netns", "add", run_name], check=True)
    host = Host(run_name, oci)
    host.ip("link", "add", "moving", "address", "02:00:00:00:00:07", "mtu", "1400", "type", "veth", "peer", "staying")
    host.ip("link", "set", "staying", "up")
    host.ip("address", "add", "10.9.0.1/24", "broadcast", "10.9.0.255", "dev", "moving")
    host.ip("address", "add", "fd00:9::1/64", "dev", "moving")
    host.ip("link", "set", "moving", "up")
    yield host
    subprocess.run(["ip", "netns", "delete", run_name], check=True)


def configure(runtime: Runtime, devices: dict[str, Any], **network: str) -> None:
    config = runtime.config()
    config["linux"]["netDevices"] = devices
    for namespace in config["linux"]["namespaces"]:
        if namespace["type"] == "network":
            namespace.update(network)
    runtime.configure(config)


@pytest.mark.parametrize(("new", "expected"), [("", "moving"), ("eth0", "eth0"), ("net%d", "net0")])
def test_a_device_moves_with_all_that_it_has(host: Host, new: str, expected: str) -> None:
    configure(host.runtime, {"moving": {"name": new} if new else {}})
    host.runtime.shell("ip address show")
    done = host.runtime("run", "a").stdout
    assert re.search(rf"{expected}@.*: <BROADCAST,MULTICAST,UP,LOWER_UP.*> mtu 1400", done), done
    assert "link/ether 02:00:00:00:00:07" in done
    assert f"inet 10.9.0.1/24 brd 10.9.0.255 scope global {expected}" in done and "inet6 fd00:9::1/64" in done
    assert host.names() <= {"lo", "staying"}  # the kernel removes virtual devices with the namespace, and their peers


def test_a_namespace_that_is_there_keeps_it(host: Host, run_name: str) -> None:
    other = f"{run_name}-b"
    subprocess.run(["ip", "netns", "add", other], check=True)
    try:
        configure(host.runtime, {"moving": {"name": "eth0"}}, path=f"/run/netns/{other}")
        host.runtime("run", "a")
        shown = subprocess.run(["ip", "-netns", other, "address", "show", "eth0"], capture_output=True, text=True)
        assert "inet 10.9.0.1/24" in shown.stdout and "UP" in shown.stdout
    finally:
        subprocess.run(["ip", "netns", "delete", other], check=True)


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ({"none": {}}, "linux.netDevices.none: the host has no network device of this name"),
        ({"moving": {}, "none": {}}, "linux.netDevices.none: the host has no network device of this name"),
        ({"moving": {"name": "x"}, "staying": {"name": "x"}}, "the container has a network device 'x' already"),
        ({"moving": {"name": "lo"}}, "the container has a network device 'lo' already"),
        ({"moving": {"name": "x" * 16}}, "not a network device's name"),
        ({"moving": {"name": "a/b"}}, "not a network device's name"),
        ({"moving": {"name": "a b"}}, "not a network device's name"),
        ({"lo": {"name": "x"}}, "linux.netDevices.lo: move it as x: Invalid argument"),
    ],
)
def test_what_cannot_be_moved_is_named_and_stays(host: Host, devices: dict[str, Any], words: str) -> None:
    configure(host.runtime, devices)
    done = host.runtime("create", "a", check=False)
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr
    assert (
        host.names() == {"lo", "moving", "staying"} and json.loads(host.runtime("list", "--format=json").stdout) == []
    )


def test_a_container_in_the_hosts_network_has_them_already(host: Host) -> None:
    config = host.runtime.config()
    config["linux"]["netDevices"] = {"moving": {}}
    config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "network"]
    host.runtime.configure(config)
    assert "linux.netDevices: the container has the host's network" in host.runtime("run", "a", check=False).stderr
