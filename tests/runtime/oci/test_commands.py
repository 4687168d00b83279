"""The commands of a plain life: by a planner that is there as by an interpreter for one call."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from runtime.cgroups.placing import all_hierarchies
from tests.runtime.command_line import PLANNERS, Runtime, environment
from tests.waiting import until

pytestmark = pytest.mark.root


def stopped(runtime: Runtime) -> bool:
    return bool(runtime.state("a")["status"] == "stopped")


def made(runtime: Runtime, script: str = "sleep 1000") -> None:
    runtime.shell(script)
    runtime("create", "a")


@pytest.mark.parametrize("planner", PLANNERS)
def test_a_plain_life(oci: Runtime, planner: str) -> None:
    env = environment(planner)
    oci.shell("sleep 1000")
    oci("create", "a", env=env)
    oci("start", "a", env=env)
    oci("kill", "a", "KILL", env=env)
    until(lambda: stopped(oci))
    oci("delete", "a", env=env)
    oci("create", "a", env=env)
    oci("delete", "--force", "a", env=env)
    assert not (oci.root / "a").exists()


def test_the_flags_of_engines_are_known(oci: Runtime, tmp_path: Path) -> None:
    made(oci)
    flags = ["--log", str(tmp_path / "log"), "--log-format=json", "--systemd-cgroup"]
    oci(*flags, "start", "a")
    oci("--cgroup-manager=cgroupfs", f"--root={oci.root}", "kill", "--all", "a", "9")
    until(lambda: stopped(oci))
    oci(*flags, "--rootless", "auto", "delete", "a", "-f")


@pytest.mark.parametrize("flag", ["--debug", "--cgroup-manager=systemd", "--log-format=text"])
def test_flags_that_say_nothing_of_it_do_no_harm(oci: Runtime, flag: str) -> None:
    made(oci)
    assert json.loads(oci(flag, "state", "a").stdout)["status"] == "created"
    oci("delete", "--force", "a")


def test_the_state_reads_the_same(oci: Runtime) -> None:
    """Byte for byte, at each status, whatever the annotations are."""
    config = oci.config()
    config["annotations"] = {"a": '"status": "\ue000", \\u0000', "ünï": "0\n", "status": '"pid": 0'}
    oci.configure(config)
    made(oci)

    def same(status: str) -> None:
        ours, theirs = (oci("state", "a", env=environment(planner)).stdout for planner in PLANNERS)
        assert ours == theirs and json.loads(ours)["status"] == status

    same("created")
    oci("start", "a")
    same("running")
    oci("pause", "a")
    same("paused")
    oci("resume", "a")
    oci("kill", "a", "SIGKILL")
    until(lambda: stopped(oci))
    same("stopped")
    oci("delete", "a")


@pytest.mark.parametrize(
    "arguments",
    [
        ("state", "b"),
        ("state", "../a"),
        ("state", "a", "b"),
        ("start", "a"),
        ("start", "--bundle", "/", "a"),
        ("kill", "a", "NONSENSE"),
        ("kill", "a", "99"),
        ("kill", "b"),
        ("delete", "a"),
        ("delete", "b"),
        ("delete", "--force", "b"),
        ("--root", "state"),
        ("--log-format", "xml", "state", "a"),
    ],
)
def test_errors_are_the_same(oci: Runtime, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    made(oci)
    oci("start", "a")
    outcomes = []
    for planner in PLANNERS:
        log = tmp_path / planner
        done = oci("--log", str(log), "--log-format", "json", *arguments, check=False, env=environment(planner))
        text = re.sub(r'"time": "[^"]*"', "", log.read_text()) if log.exists() else ""
        outcomes.append((done.returncode, done.stdout, done.stderr, text))
    oci("delete", "--force", "a")
    assert outcomes[0] == outcomes[1]


def test_a_start_that_fails_is_explained(oci: Runtime) -> None:
    shell, outcomes = oci.bundle / "rootfs" / "bin" / "sh", []
    for planner in PLANNERS:
        made(oci)
        shell.rename(shell.with_name("hidden"))
        done = oci("start", "a", check=False, env=environment(planner))
        shell.with_name("hidden").rename(shell)
        outcomes.append((done.returncode, done.stdout, done.stderr))
        until(lambda: stopped(oci))
        oci("delete", "a")
    assert outcomes[0] == outcomes[1] and outcomes[0][0] == 1
    assert "executable file `sh` not found in $PATH" in outcomes[0][2]


def test_another_process_with_its_number_is_not_it(oci: Runtime) -> None:
    made(oci)
    (oci.root / "a" / "process").write_text(f"{os.getpid()} 1\n")
    assert oci.state("a")["status"] == "stopped"
    assert "not running" in oci("kill", "a", "KILL", check=False).stderr
    oci("delete", "a")


@pytest.mark.parametrize("name", ["USR1", "sigusr1", "10"])
def test_signals_have_names_and_numbers(oci: Runtime, name: str) -> None:
    ready, got = (oci.bundle / "rootfs" / file for file in ("ready", "got"))
    made(oci, "trap 'echo > /got' USR1; echo > /ready; while :; do sleep 0.01; done")
    oci("start", "a")
    until(ready.exists)
    oci("kill", "a", name)
    until(got.exists)
    oci("delete", "--force", "a")


def without_pid_namespace(runtime: Runtime) -> None:
    config = runtime.config()
    config["linux"]["namespaces"] = [kind for kind in config["linux"]["namespaces"] if kind["type"] != "pid"]
    runtime.configure(config)


def test_all_of_a_containers_processes_are_signalled_once(oci: Runtime) -> None:
    without_pid_namespace(oci)
    count = oci.bundle / "rootfs" / "count"
    made(oci, "for i in 1 2 3; do sh -c 'trap \"echo $$ >> /count\" USR1; while :; do sleep 0.01; done' & done; wait")
    oci("start", "a")
    until(lambda: len(json.loads(oci("ps", "--format", "json", "a").stdout)) >= 7)
    time.sleep(0.3)
    oci("kill", "-a", "a", "USR1")
    until(lambda: count.exists() and len(count.read_text().split()) == 3)
    oci("delete", "--force", "a")
    assert len(set(count.read_text().split())) == 3 == len(count.read_text().split())


def test_processes_that_are_left_are_killed(oci: Runtime) -> None:
    without_pid_namespace(oci)
    made(oci, "sleep 1000 & sleep 1000")
    oci("start", "a")
    until(lambda: len(json.loads(oci("ps", "--format", "json", "a").stdout)) >= 2)
    pids = json.loads(oci("ps", "--format", "json", "a").stdout)
    oci("delete", "--force", "a")
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_cgroups_below_its_own_are_removed(oci: Runtime) -> None:
    made(oci)
    cgroup = all_hierarchies().used[0] / oci.config()["linux"]["cgroupsPath"].strip("/")
    (cgroup / "below").mkdir()
    oci("delete", "--force", "a")
    assert not cgroup.exists()


def test_a_paused_container_is_deleted(oci: Runtime) -> None:
    made(oci)
    oci("start", "a")
    oci("pause", "a")
    oci("delete", "--force", "a")


def test_of_two_at_once_one_does_it(oci: Runtime) -> None:
    """As many starts as there is place for: one starts the container; and one deletes it."""
    made(oci)
    for arguments in (("start", "a"), ("delete", "--force", "a")):
        command = oci.command(*arguments)
        running = [subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=oci.bundle) for _ in range(8)]
        codes = sorted(process.wait(60) for process in running)
        assert codes == ([0, *[1] * 7] if arguments[0] == "start" else [0] * 8)
        assert (oci.root / "a").exists() == (arguments[0] == "start")


def test_a_stopped_container_killed_at_every_step_of_its_deletion(oci: Runtime) -> None:
    def dead() -> None:
        made(oci)
        os.kill(oci.state("a")["pid"], signal.SIGKILL)
        until(lambda: stopped(oci))

    dead()
    points = oci.calls("delete", "a")
    for call, number in points[points.index(("flock", 1)) :]:
        dead()
        oci.killed_at(call, number, "delete", "a")
        oci("delete", "--force", "a")
        assert not (oci.root / "a").exists(), (call, number)
    assert len(points) > 20
