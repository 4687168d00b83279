"""Ends of applications that are up in machines: each service gets its own signal and its time, in the right order."""

from __future__ import annotations

import os
import re
import signal
import threading
import time

import pytest

from runtime.cgroups import Cgroup
from runtime.lease import cgroup_name
from runtime.processes import alive
from testbed.projects.control import bring_down
from testbed.projects.record import choose, find
from tests.testbed.projects.conftest import Start, Write
from tests.testbed.projects.test_compose import execute
from tests.testbed.projects.test_control import fetch
from tests.waiting import until

pytestmark = pytest.mark.root

# The database has a signal of its own and is healthy a moment after its start; the web server ends when it is asked to,
# and the stubborn one never does.
COMPOSE = """name: {name}
services:
  web:
    build: ./web
    command: ["/bin/sh", "-c", "trap 'echo web asked; exit 3' TERM; busybox httpd -p 8080 -h /www; {loop}"]
    ports: ["{port}:8080"]
    depends_on:
      db: {{condition: service_healthy}}
      setup: {{condition: service_completed_successfully}}
    deploy: &limits {{resources: {{limits: {{cpus: "0.5", memory: 96M}}}}}}
  db:
    build: ./web
    command: ["/bin/sh", "-c", {script}]
    stop_signal: SIGUSR1
    stop_grace_period: 30s
    restart: always
    healthcheck: {{test: [CMD, busybox, test, -e, /ok], interval: 200ms}}
    deploy: *limits
  setup:
    build: ./web
    command: ["/bin/sh", "-c", "echo set up"]
    deploy: *limits
  stubborn:
    build: ./web
    command: ["/bin/busybox", "sleep", "1000"]
    stop_grace_period: 500ms
    depends_on: [db]
    deploy: *limits
x-testbed:
  ready: {{service: web, port: 8080, path: /index.html, timeout_s: 60}}
"""
LOOP = "while :; do busybox sleep 0.05; done"
DB = f"\"trap 'busybox sleep 0.5; echo db asked; exit 5' USR1; busybox sleep 0.4; : >/ok; {LOOP}\""


def read_lines(text: str) -> list[str]:
    """Return the lines of a console, without their times and the names of containers in a guest."""
    return [re.sub(r"^(\[[\d.]+\] )?((web|db|setup|stubborn): )?", "", line).rstrip("\r") for line in text.splitlines()]


def test_the_record_says_how_each_has_ended_while_others_are_waited_for(
    start: Start, write_scenario: Write, run_name: str
) -> None:
    project = start(write_scenario(DB, 18096, COMPOSE.replace("{loop}", LOOP)))
    ending = threading.Thread(target=bring_down, args=(project,))
    ending.start()
    seen = set()
    while ending.is_alive():
        now = find(run_name)
        if now is not None and now.record is not None:
            seen.add(tuple((one.name, one.state, one.exit_status) for one in now.record.members))
    ending.join()
    others = (("setup", "exited", 0), ("stubborn", "exited", 137), ("web", "exited", 3))
    assert any(set(others) < set(one) and ("db", "running", None) in one for one in seen), seen
    assert not any(("db", "exited", 5) in one and not set(others) < set(one) for one in seen), seen


@pytest.mark.vm
@pytest.mark.parametrize("kind", ["vm-pod", "vm-containers"])
def test_services_of_one_guest_wait_for_each_other_and_end_one_by_one(
    start: Start, write_scenario: Write, run_name: str, kind: str
) -> None:
    project = start(write_scenario(DB, 18096, COMPOSE.replace("{loop}", LOOP)), platform=kind)
    assert fetch(project) == "<p>here</p>\n"
    record = project.record
    assert record is not None

    def states() -> dict[str, str]:
        now = choose(run_name).record
        assert now is not None
        return {one.name: f"{one.state} {one.health} {one.exit_status}" for one in now.members}

    others = {"stubborn": "running  None", "web": "running  None"}
    as_it_should_be = {"db": "running healthy None", "setup": "exited  0", **others}
    until(lambda: states() == as_it_should_be, 10.0, states)
    execute(project, "db", "echo > /mark; kill -USR1 1")  # and ends, which it never may
    until(lambda: states()["db"].startswith("exited"), told=states)
    until(lambda: states() == as_it_should_be, 20.0, states)
    assert execute(project, "db", "busybox ls /mark || busybox ls /ok").splitlines()[-1] == "/ok", "it is a new one"
    (log,) = (project.directory / "logs").glob("*.log")
    with log.open(errors="replace") as console:
        begun_s = time.monotonic()
        bring_down(choose(run_name))
        took_s = time.monotonic() - begun_s
        said = read_lines(console.read())
    events = [line for line in said if line.startswith("testbed: ") or line.endswith("asked")]
    assert events.index("testbed: setup: left: 0") < events.index("testbed: web: exec"), said
    *first, last = [line for line in events if re.search(r" (asked|left: [1-9]\d*|ended: \d+)$", line)]
    assert first[:2] == ["db asked", "testbed: db: left: 5"], "that was the first one"
    assert sorted(first[2:]) == ["testbed: stubborn: left: 137", "testbed: web: left: 3", "web asked"], said
    assert last == "db asked", "what others depend on ends after them"
    assert took_s < 20, "nobody was waited for who had ended"
    assert find(run_name) is None and not alive(record.holder, record.ticks)


@pytest.mark.vm
def test_a_machine_that_hangs_is_ended_in_time(start: Start, write_scenario: Write, run_name: str) -> None:
    """Its port takes what it is sent, and nothing comes of it; the other one's first process ignores its signal."""
    project = start(write_scenario(), platform="vm")
    assert project.record is not None
    side = Cgroup(cgroup_name(project.directory.name, project.record.member("side").instance))
    (emulator,) = side.pids()
    os.kill(emulator, signal.SIGSTOP)
    begun_s = time.monotonic()
    bring_down(project, 0.5)
    assert time.monotonic() - begun_s < 15
    assert find(run_name) is None and not side.exists()
