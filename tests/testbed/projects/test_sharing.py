"""Services that are up and share namespaces, with each other and with the host, seen from inside and from outside."""

from __future__ import annotations

import os
import signal
import socket
import urllib.request
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError, UsageError
from testbed.projects.control import bring_down
from testbed.projects.record import Member, choose, find
from tests.testbed.projects.conftest import Start, Write
from tests.testbed.projects.test_compose import execute
from tests.testbed.projects.test_control import read
from tests.waiting import until

pytestmark = pytest.mark.root
COMPOSE = """name: {name}
services:
  gate:
    build: ./web
    hostname: gateway
    command: ["/bin/sh", "-c", "echo lent > /dev/shm/memory; cd /dev; exec busybox httpd -f -p 8081 -h shm"]
    ports: ["18101:8081"]
    ipc: shareable
    restart: always
    deploy: &limits {{resources: {{limits: {{cpus: "0.5", memory: 128M}}}}}}
  web:
    build: ./web
    network_mode: "service:gate"
    pid: "service:gate"
    ipc: "service:gate"
    restart: always
    ports: ["18102:8080"]
    healthcheck: {{test: "busybox wget -qO /dev/null http://127.0.0.1:8081/memory", interval: 100ms, retries: 50}}
    deploy: *limits
  near:
    build: ./web
    network_mode: "container:gate"
    command: ["/bin/busybox", "sleep", "1000"]
    deploy: *limits
  other:
    build: ./web
    depends_on: {{web: {{condition: service_healthy}}}}
    command: ["/bin/sh", "-c", {script}]
    deploy: *limits
  agent:
    build: ./web
    network_mode: host
    pid: host
    ipc: host
    uts: host
    cgroup: host
    expose: ["{port}"]
    command: ["/bin/busybox", "httpd", "-f", "-p", "{port}", "-h", "/www"]
    healthcheck: {{test: "busybox wget -qO /dev/null http://127.0.0.1:{port}/", interval: 100ms, retries: 50}}
    deploy: *limits
x-testbed:
  ready: {{service: agent, port: {port}, path: /index.html, body: here, timeout_s: 20}}
"""
PORT = 18103
OTHER = '"busybox wget -qO- http://web:8080/index.html http://gate:8081/memory; exec busybox sleep 1000"'
KINDS = ("net", "pid", "ipc", "uts", "cgroup", "mnt")


def get(port: int, path: str = "index.html") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
        return str(answer.read().decode())


def shared(one: int | str, other: int | str) -> set[str]:
    return {kind for kind in KINDS if os.readlink(f"/proc/{one}/ns/{kind}") == os.readlink(f"/proc/{other}/ns/{kind}")}


def members(name: str) -> dict[str, Member]:
    record = choose(name).record
    assert record is not None
    return {one.name: one for one in record.members}


def test_one_joins_anothers_namespaces_or_the_hosts(start: Start, write_scenario: Write, run_name: str) -> None:
    project = start(write_scenario(OTHER, PORT, COMPOSE))
    up = members(run_name)
    gate, web, agent = up["gate"], up["web"], up["agent"]
    assert shared(web.pid, gate.pid) == {"net", "pid", "ipc"}
    assert shared(agent.pid, "self") == {"net", "pid", "ipc", "uts", "cgroup"}
    assert shared(up["other"].pid, gate.pid) == set()
    assert web.address == gate.address != up["other"].address and agent.address == "127.0.0.1"
    until(lambda: read(project, "other") == ["<p>here</p>", "lent"], told=lambda: read(project, "other"))
    assert (get(18101, "memory"), get(18102), get(PORT)) == ("lent\n", "<p>here</p>\n", "<p>here</p>\n")
    assert project.record is not None
    where = {one.service: str(one) for one in project.record.published}
    assert where == {"gate": "127.0.0.1:18101", "web": "127.0.0.1:18102", "agent": f"http://127.0.0.1:{PORT}/"}
    told = execute(project, "web", "echo back > /dev/shm/answer; busybox hostname; busybox ps; busybox cat /etc/hosts")
    hostname, *lines = told.splitlines()
    assert hostname == "gateway" and [line for line in lines if line.strip().startswith("1 ") and "-p 8081" in line]
    assert f"{gate.address}\tgateway" in lines and f"{gate.address}\tweb" in lines
    assert get(18101, "answer") == "back\n"
    assert execute(project, "agent", "busybox hostname; busybox readlink /proc/self/ns/net").splitlines() == [
        os.uname().nodename,
        os.readlink("/proc/self/ns/net"),
    ]
    until(lambda: members(run_name)["agent"].health == members(run_name)["web"].health == "healthy")
    check_restart(run_name)
    bring_down(project, 1)
    assert find(run_name) is None and not Path(f"/proc/{web.pid}/root/www").exists()
    with pytest.raises(OSError, match="refused"):
        get(PORT)


def check_restart(name: str) -> None:
    """With a service go those that share what it has; one of them alone comes back to where it was."""
    before = members(name)

    def others(*services: str) -> bool:
        now = members(name)
        return all(now[one].state == "running" and now[one].pid != before[one].pid for one in services)

    os.kill(before["gate"].pid, signal.SIGKILL)
    until(lambda: others("gate", "web", "near"), told=lambda: members(name))
    before = members(name)
    assert shared(before["web"].pid, before["gate"].pid) == {"net", "pid", "ipc"}
    assert shared(before["near"].pid, before["gate"].pid) == {"net"}, "which would not be started again by itself"
    until(lambda: get(18102) == "<p>here</p>\n")
    os.kill(before["web"].pid, signal.SIGKILL)
    until(lambda: others("web"), told=lambda: members(name))
    assert shared(members(name)["web"].pid, before["gate"].pid) == {"net", "pid", "ipc"}


def test_a_port_of_the_host_that_is_taken_is_told(start: Start, write_scenario: Write, run_name: str) -> None:
    folder = write_scenario(OTHER, PORT, COMPOSE)
    told = pytest.raises(PrerequisiteError, match=f"agent: port {PORT} of the host's network.* already in use")
    with socket.create_server(("127.0.0.1", PORT)), told:
        start(folder)
    assert find(run_name) is None


def test_machines_share_nothing_by_name(start: Start, write_scenario: Write, run_name: str) -> None:
    folder = write_scenario(OTHER, PORT, COMPOSE)
    with pytest.raises(UsageError, match=r"agent\.network_mode: the network of the host: vm cannot have that"):
        start(folder, platform="vm")
    text = (folder / "compose.yaml").read_text()
    (folder / "compose.yaml").write_text(text[: text.index("  agent:")])
    with pytest.raises(UsageError, match=r"web\.network_mode: service:gate: not on vm\nweb.pid: service:gate: not on"):
        start(folder, platform="vm")
    assert find(run_name) is None


@pytest.mark.vm
@pytest.mark.parametrize("platform", ["vm-pod", "vm-containers"])
def test_services_of_one_guest_share_what_it_can(start: Start, write_scenario: Write, platform: str) -> None:
    text = COMPOSE[: COMPOSE.index("  agent:")].replace("{{web: {{condition: service_healthy}}}}", "[web]")
    ready = "x-testbed:\n  ready: {{service: web, port: 8080, path: /index.html, body: here, timeout_vm_s: 300}}\n"
    alike = platform == "vm-containers"
    if not alike:
        text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith(("    pid:", "    ipc:")))
    script = '"until busybox wget -qO- http://web:8080/; do busybox sleep 0.2; done; exec busybox sleep 1000"'
    project = start(write_scenario(script, PORT, text + ready), platform=platform)
    assert (get(18101, "memory"), get(18102)) == ("lent\n", "<p>here</p>\n")
    told = execute(project, "web", "busybox hostname; busybox ls /dev/shm; busybox ps").splitlines()
    assert told[0] == "gateway" and ("memory" in told) == alike
    assert any("-p 8081" in line for line in told) == alike, "whose processes those are"
    until(lambda: any("here" in line for line in read(project, "other")), 60, lambda: read(project, "other"))
