"""Planners and clients that are killed at any step, and commands beside each other: nothing is left, nothing is torn,
and the next command is served."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

import pytest
from msgspec import Struct

from tests.runtime.planner_host import PlannerHost
from tests.waiting import until

pytestmark = pytest.mark.root

# What each command needs to have been before it.
OPERATIONS: dict[str, tuple[list[list[str]], list[str]]] = {
    "create": ([], ["create", "a"]),
    "run": ([], ["run", "a"]),
    "run detached": ([], ["run", "--detach", "a"]),
    "start": ([["create", "a"]], ["start", "a"]),
    "state": ([["create", "a"]], ["state", "a"]),
    "exec": ([["run", "--detach", "a"]], ["exec", "a", "true"]),
    "kill": ([["create", "a"]], ["kill", "a", "KILL"]),
    "delete": ([["create", "a"]], ["delete", "--force", "a"]),
}


def prepare(host: PlannerHost, operation: str) -> list[str]:
    """Have done what is to be before a command; return the command."""
    host.oci.shell("true" if operation == "run" else "exec sleep 1000")
    before, command = OPERATIONS[operation]
    for each in before:
        host.oci(*each)
    return command


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_planner_killed_at_every_step(host: PlannerHost, operation: str) -> None:
    """Before anything is done another one is asked; in the middle the command says so, and what it had begun is
    undone or can be deleted."""
    command = prepare(host, operation)
    host.clean()
    prepare(host, operation)
    steps = host.steps(host.warm(), *command)
    host.clean()
    assert len(steps) >= 2
    for call, number in steps:
        prepare(host, operation)
        host.traced(host.warm(), [f"-einject={call}:signal=KILL:when={number}"], *command)
        host.clean()
    host.live()


def test_what_a_command_says_whose_planner_is_killed(host: PlannerHost) -> None:
    """Success, for who asked another one; or an error that names it."""
    steps = host.steps(host.warm(), "create", "a")
    host.clean()
    for call, number in steps[::2]:
        inject = [f"-einject={call}:signal=KILL:when={number}"]
        planner = host.warm()
        with host.watched(planner, inject):
            done = host.oci("create", "a", check=False)
        assert done.returncode == 0 or "planner" in done.stderr, (call, number, done)
        there = done.returncode == 0
        assert (host.oci.root / "a").exists() == host.cgroup().exists() == there, (call, number, done)
        host.clean()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_client_killed_at_its_steps(host: PlannerHost, operation: str) -> None:
    """The planner goes on, holds nothing of it, and serves the next. At each fourth step: test_killed.py takes all."""
    command = prepare(host, operation)
    planner = host.warm()
    points = [point for point in host.oci.changes(*command) if point.hit]
    host.clean()
    descriptors = Path(f"/proc/{planner}/fd")
    held = len(list(descriptors.iterdir()))
    for point in points[::4]:
        prepare(host, operation)
        host.oci.ended_at(point.call, point.number, *command)
        host.clean()
    assert host.warm() == planner, "it was lost with a client"
    until(lambda: len(list(descriptors.iterdir())) <= held, 5, lambda: os.listdir(descriptors))


@pytest.mark.parametrize("commands", [("run",), ("run", "--detach")])
def test_a_first_process_that_is_killed_when_it_is_to_start(host: PlannerHost, commands: tuple[str, ...]) -> None:
    """Nobody waits for it, though the command that starts it has made it, too."""
    host.warm()
    for _ in range(3):
        done = host.oci.traced(["-s200", "-einject=accept4:signal=KILL:when=1"], *commands, "a")
        own = [rest for pid, rest in done if pid == done[0][0]]
        assert own[-1] == "+++ exited with 1 +++"
        words = ("it is stopped", "it does not wait", "has ended before it was started", "killed before it executed")
        assert any(word in rest for word in words for rest in own), own[-9:]
        host.clean()


class Begun(Struct):
    """A command that is under way; what it says goes to a file, as a container may keep that open."""

    process: subprocess.Popen[bytes]
    said: IO[str]

    def end(self) -> tuple[int, str]:
        """Its exit status, and what it said."""
        code = self.process.wait(60)
        self.said.seek(0)
        with self.said:
            return code, self.said.read()


def begin(host: PlannerHost, *arguments: str) -> Begun:
    null, said = subprocess.DEVNULL, tempfile.TemporaryFile("w+")  # noqa: SIM115  Begun closes it
    command = host.oci.command(*arguments)
    return Begun(subprocess.Popen(command, cwd=host.oci.bundle, stdin=null, stdout=null, stderr=said), said)


@pytest.mark.parametrize("warm", [True, False])
def test_one_name_asked_for_by_many_at_once(host: PlannerHost, warm: bool) -> None:
    if warm:
        host.warm()
    found = [each.end() for each in [begin(host, "create", "a") for _ in range(6)]]
    assert sorted(code for code, _ in found) == [0, 1, 1, 1, 1, 1], found
    assert all("a" in said and "Traceback" not in said for code, said in found if code)
    until(lambda: len(host.planners()) == 1, 10, host.planners)
    host.clean()


@pytest.mark.parametrize("warm", [True, False])
def test_many_names_at_once(host: PlannerHost, warm: bool) -> None:
    """All are served; of the planners that are started at once, one remains."""
    if warm:
        host.warm()
    config = host.oci.config()
    del config["linux"]["cgroupsPath"]
    host.oci.configure(config)
    names = [f"many-{os.getpid()}-{number}" for number in range(8)]
    assert [each.end()[0] for each in [begin(host, "create", name) for name in names]] == [0] * 8
    until(lambda: len(host.planners()) == 1, 10, host.planners)
    assert [each.end()[0] for each in [begin(host, "delete", "--force", name) for name in names]] == [0] * 8
    assert json.loads(host.oci("list", "--format", "json").stdout) == []


def test_create_and_delete_of_one_name_at_once(host: PlannerHost) -> None:
    host.warm()
    for _ in range(10):
        commands = [begin(host, "create", "a"), begin(host, "delete", "--force", "a")]
        for _code, said in [each.end() for each in commands]:
            assert "Traceback" not in said and "planner" not in said
        host.clean()


def test_what_a_client_leaves_that_dies_while_it_is_served(host: PlannerHost) -> None:
    """Killed at any moment, by the clock instead of by its steps, two at once."""
    planner = host.warm()
    for number in range(40):
        commands = [begin(host, "create", "a"), begin(host, "state", "a")]
        time.sleep(number * 0.0005)
        for command in commands:
            command.process.kill()
            command.end()
        host.clean()
    assert host.warm() == planner
