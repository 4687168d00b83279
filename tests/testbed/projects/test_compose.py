"""Compose files as other people write them: what they say of mounts, names, users, health, order and ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import UsageError, WorkloadError
from testbed.projects.control import bring_down
from testbed.projects.record import Project, choose, find
from testbed.projects.volumes import remove_volumes, volumes_folder
from tests.testbed.projects.conftest import Start, Write
from tests.testbed.projects.test_control import fetch, read
from tests.testbed.projects.test_execution import CALL, ROOT
from tests.waiting import until

pytestmark = pytest.mark.root

COMPOSE = """name: {name}
services:
  web:
    build: ./web
    ports: ["{port}:8080"]
    hostname: front
    read_only: true
    user: "33:44"
    working_dir: /srv/work
    extra_hosts: ["outside:10.1.2.3"]
    links: ["db:database"]
    volumes:
      - ./site:/www:ro
      - data:/data
      - {{type: tmpfs, target: /scratch, tmpfs: {{size: 2m}}}}
    shm_size: 1m
    secrets: [token]
    configs: [{{source: conf, target: /etc/app.conf, mode: 0440, uid: "33"}}]
    healthcheck:
      test: ["CMD", "busybox", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/index.html"]
      interval: 200ms
    depends_on:
      db: {{condition: service_healthy}}
      setup: {{condition: service_completed_successfully}}
    stop_signal: SIGKILL
    deploy: &limits {{resources: {{limits: {{cpus: "0.5", memory: 128M}}}}}}
  db:
    build: ./web
    command: ["/bin/sh", "-c", {script}]
    stop_signal: SIGUSR1
    init: true
    stop_grace_period: 20s
    healthcheck: {{test: "test -e /ok", interval: 100ms, retries: 50}}
    networks: {{default: {{aliases: [store]}}}}
    volumes: ["./out:/out"]
    deploy: *limits
  setup:
    build: ./web
    command: ["/bin/sh", "-c", "echo set up > /data/done"]
    volumes: ["{volume}:/data"]
    deploy: *limits
volumes: {{data: , other: }}
secrets: {{token: {{file: ./token}}}}
configs: {{conf: {{content: "a=1"}}}}
"""
COMPOSE_AGAIN = """name: {name}
services:
  web:
    build: ./web
    ports: ["{port}:8080"]
    depends_on: [side]
    deploy: &limits {{resources: {{limits: {{cpus: "0.5", memory: 128M}}}}}}
  side:
    build: ./web
    restart: {policy}
    command: ["/bin/sh", "-c", {script}]
    volumes: ["./state:/state"]
    deploy: *limits
x-testbed:
  ready: {{service: web, port: 8080, path: /index.html}}
"""
LOOP = "while :; do busybox sleep 0.05; done"
DB = f""""trap 'echo ended > /out/end; exit 0' USR1; busybox sleep 0.4; echo > /ok; {LOOP}\""""


@pytest.fixture
def folder(write_scenario: Write) -> Path:
    folder = write_scenario(DB, 18098, COMPOSE.replace("{volume}", "data"))
    (folder / "site").mkdir()
    (folder / "site" / "index.html").write_text("<p>bound here</p>\n")
    (folder / "token").write_text("s3cret")
    return folder


def execute(project: Project, service: str, script: str) -> str:
    words = [sys.executable, "-c", CALL, project.name, service, "no", "sh", "-c", script]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_a_file_means_what_it_means_to_compose(start: Start, folder: Path, run_name: str) -> None:
    project = start(folder)
    assert fetch(project) == "<p>bound here</p>\n"
    told = execute(
        project,
        "web",
        "busybox id; pwd; busybox hostname; busybox cat /run/secrets/token /etc/app.conf; busybox stat -c %u:%a "
        "/etc/app.conf /run/secrets/token; busybox ls /data; echo > /www/x || echo read only; echo > /scratch/x && "
        "busybox stat -f -c '%T %b' /scratch /dev/shm",
    )
    assert told.splitlines() == [
        "uid=33 gid=44", "/srv/work", "front", "s3creta=133:440", "0:444", "done", "seed", "read only", "tmpfs 512",
        "tmpfs 256",
    ]  # fmt: skip
    lines = [line.split("\t") for line in execute(project, "web", "busybox cat /etc/hosts").splitlines()]
    hosts = {name: address for address, name in lines}
    assert hosts["outside"] == "10.1.2.3" and hosts["db"] == hosts["database"] == hosts["store"] != hosts["front"]

    def states() -> dict[str, str]:
        now = choose(run_name)
        assert now.record is not None
        return {one.name: f"{one.state} {one.health}".strip() for one in now.record.members}

    until(lambda: states() == {"db": "running healthy", "setup": "exited", "web": "running healthy"}, 10.0, states)
    bring_down(project)
    assert (folder / "out" / "end").read_text() == "ended\n", "it got its own signal, and the time to end"
    assert (volumes_folder(run_name) / "data" / "done").exists(), "a volume outlives what is up"
    assert remove_volumes(run_name) == ("data",) and not volumes_folder(run_name).exists()


def test_what_others_wait_for_in_vain_is_told(start: Start, folder: Path, run_name: str) -> None:
    compose = folder / "compose.yaml"
    text = compose.read_text()
    compose.write_text(text.replace("retries: 50", "retries: 1"))
    with pytest.raises(WorkloadError, match="db, which others wait for, is unhealthy"):
        start(folder)
    compose.write_text(text.replace("echo set up > /data/done", "echo no; exit 4"))
    with pytest.raises(WorkloadError, match="setup has ended: exit status 4") as raised:
        start(folder)
    assert "no" in str(raised.value) and find(run_name) is None


def test_a_service_is_started_again_as_its_file_says(start: Start, write_scenario: Write, run_name: str) -> None:
    """One that ends because another is not ready yet, as many do; and then whenever it ends."""
    script = '"busybox ls /state/second >/state/seen && exec busybox sleep 100; echo > /state/second; exit 3"'
    compose = COMPOSE_AGAIN.replace("{policy}", "always")
    folder = write_scenario(script, 18097, compose)
    (folder / "state").mkdir()
    project = start(folder)

    def find_running(other: int) -> int:
        """The process of the service when it runs and is another one."""
        now = choose(run_name).record
        assert now is not None
        side = now.member("side")
        return side.pid if side.state == "running" and side.pid != other else 0

    first = until(lambda: find_running(0))
    assert (folder / "state" / "second").exists()
    os.kill(first, signal.SIGKILL)
    until(lambda: find_running(first))
    bring_down(project, 0)
    (folder / "state" / "second").unlink()
    text = (folder / "compose.yaml").read_text()
    late = '    command: ["/bin/sh", "-c", "busybox sleep 2; exec busybox httpd -f -p 8080 -h /www"]\n    ports:'
    (folder / "compose.yaml").write_text(text.replace("always", '"no"').replace("    ports:", late))
    with pytest.raises(WorkloadError, match="side has ended: exit status 3"):
        start(folder)


@pytest.mark.vm
def test_machines_have_the_same_bytes(start: Start, folder: Path, run_name: str) -> None:
    compose = folder / "compose.yaml"
    script = "busybox cat /run/secrets/token /etc/app.conf; busybox id; pwd; echo > /x; "
    script += "echo sizes $$(busybox stat -f -c %b /scratch /dev/shm); exec busybox httpd -f -p 8080 -h /www"
    text = compose.read_text()
    compose.write_text(text.replace("    hostname: front\n", f'    command: ["/bin/sh", "-c", "{script}"]\n'))
    project = start(folder, platform="vm")
    assert fetch(project) == "<p>bound here</p>\n"
    console = "\n".join(read(project, "web"))
    assert "s3creta=1uid=33 gid=44" in console and "/srv/work" in console
    assert "sizes 512 256" in console
    assert "can't create /x: Read-only file system" in console
    assert project.record is not None and project.record.member("setup").exit_status == 0
    bring_down(project)
    assert (folder / "out" / "end").read_text() == "ended\n", "it got its own signal, and wrote to the host's directory"


@pytest.mark.parametrize(
    ("bound", "told"),
    [
        ("./new:/www/index.html", "web: {}/new, mounted at /www/index.html, is not there"),
        (
            "./web:/www/index.html",
            "web: {}/web is a directory, and /www/index.html, where it is mounted, a file of the",
        ),
        ("./token:/www", "web: {}/token is a file, and /www, where it is mounted, a directory of the image"),
    ],
)
def test_what_no_kernel_mounts_on_something_of_the_image_is_told(
    start: Start, folder: Path, bound: str, told: str
) -> None:
    compose = folder / "compose.yaml"
    compose.write_text(compose.read_text().replace("./site:/www:ro", bound))
    with pytest.raises(UsageError, match=re.escape(told.format(folder))):
        start(folder)
    assert not (folder / "new").exists()


GRANTS = """name: {name}
services:
  web:
    build: ./web
    command: {script}
    sysctls: {{net.core.somaxconn: 77, kernel.shmmax: "4096"}}
    devices: ["/dev/net/tun:/dev/tunnel:rw"]
    dns: 192.0.2.53
    dns_search: [a.example]
    deploy: &limits {{resources: {{limits: {{cpus: "0.5", memory: 128M}}}}}}
  alone:
    build: ./web
    network_mode: none
    ports: ["{port}"]
    command: ["/bin/sh", "-c", "busybox ip -o link; exec busybox sleep 1000"]
    deploy: *limits
"""
GRANTED = (
    "busybox cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmax /etc/resolv.conf; "
    "busybox stat -c '%t %T' /dev/tunnel; : <>/dev/tunnel && echo opened; exec busybox sleep 1000"
)


def test_what_a_service_is_granted_of_the_kernel(start: Start, write_scenario: Write) -> None:
    project = start(write_scenario(f'["/bin/sh", "-c", "{GRANTED}"]', compose=GRANTS))
    assert project.record is not None and project.record.published == ()
    assert project.record.member("alone").address == ""
    until(lambda: "opened" in read(project, "web") and read(project, "alone"), told=lambda: read(project, "web"))
    assert read(project, "web") == ["77", "4096", "nameserver 192.0.2.53", "search a.example", "a c8", "opened"]
    (only,) = read(project, "alone")
    assert only.startswith("1: lo:")
