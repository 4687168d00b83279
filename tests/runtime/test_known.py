"""Containers that the launcher serves by itself: as the interpreter would, and only what is plain."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from runtime.cgroups.placing import all_hierarchies
from tests.runtime.oci import Runtime
from tests.waiting import until

pytestmark = pytest.mark.root


def by_itself(runtime: Runtime, *arguments: str) -> bool:
    """Run a command, which must succeed; whether the launcher did it, with no interpreter."""
    lines = [what for _, what in runtime.traced(["-etrace=execve"], *arguments)]
    assert "+++ exited with 0 +++" in lines, lines
    return len([line for line in lines if line.startswith("execve(")]) == 1


def by_interpreter(runtime: Runtime, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runtime.oci.cli", "--root", str(runtime.root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=runtime.bundle, timeout=60)


def ways(runtime: Runtime) -> tuple[Callable[..., subprocess.CompletedProcess[str]], ...]:
    return (partial(runtime, check=False), partial(by_interpreter, runtime))


def stopped(runtime: Runtime) -> bool:
    return bool(runtime.oci.state("a")["status"] == "stopped")


def made(runtime: Runtime, script: str = "sleep 1000") -> None:
    runtime.shell(script)
    runtime("create", "a")


def test_a_plain_life_needs_no_interpreter(oci: Runtime) -> None:
    made(oci)
    assert by_itself(oci, "state", "a") and by_itself(oci, "start", "a") and by_itself(oci, "state", "a")
    assert by_itself(oci, "kill", "a", "KILL")
    until(lambda: stopped(oci))
    assert by_itself(oci, "delete", "a")
    made(oci)
    assert by_itself(oci, "delete", "--force", "a") and not (oci.root / "a").exists()


def test_the_flags_of_engines_are_known(oci: Runtime, tmp_path: Path) -> None:
    made(oci)
    flags = ["--log", str(tmp_path / "log"), "--log-format=json", "--systemd-cgroup"]
    assert by_itself(oci, *flags, "start", "a")
    assert by_itself(oci, "--cgroup-manager=cgroupfs", f"--root={oci.root}", "kill", "--all", "a", "9")
    until(lambda: stopped(oci))
    assert by_itself(oci, *flags, "--rootless", "auto", "delete", "a", "-f")


@pytest.mark.parametrize("flag", ["--debug", "--cgroup-manager=systemd", "--log-format=text"])
def test_flags_that_say_nothing_of_it_do_no_harm(oci: Runtime, flag: str) -> None:
    made(oci)
    assert by_itself(oci, flag, "state", "a") == (flag != "--debug")
    oci("delete", "--force", "a")


def test_the_state_reads_the_same(oci: Runtime) -> None:
    """Byte for byte, at each status, whatever the annotations are."""
    config = oci.config()
    config["annotations"] = {"a": '"status": "\ue000", \\u0000', "ünï": "0\n", "status": '"pid": 0'}
    oci.configure(config)
    made(oci)

    def same(status: str) -> None:
        ours, theirs = oci("state", "a"), by_interpreter(oci, "state", "a")
        assert ours.stdout == theirs.stdout and json.loads(ours.stdout)["status"] == status
        assert by_itself(oci, "state", "a")

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
    logs, outcomes = (tmp_path / "ours", tmp_path / "theirs"), []
    for log, run in zip(logs, ways(oci), strict=True):
        done = run("--log", str(log), "--log-format", "json", *arguments)
        text = re.sub(r'"time": "[^"]*"', "", log.read_text()) if log.exists() else ""
        outcomes.append((done.returncode, done.stdout, done.stderr.replace("cli.py", "testbed-runtime"), text))
    oci("delete", "--force", "a")
    assert outcomes[0] == outcomes[1]


def test_a_start_that_fails_is_explained(oci: Runtime) -> None:
    shell, outcomes = oci.bundle / "rootfs" / "bin" / "sh", []
    for run in ways(oci):
        made(oci)
        shell.rename(shell.with_name("hidden"))
        done = run("start", "a")
        shell.with_name("hidden").rename(shell)
        outcomes.append((done.returncode, done.stdout, done.stderr))
        until(lambda: stopped(oci))
        oci("delete", "a")
    assert outcomes[0] == outcomes[1] and outcomes[0][0] == 1
    assert "executable file `sh` not found in $PATH" in outcomes[0][2]


@pytest.mark.parametrize(
    ("kind", "handed"), [("poststart", "start"), ("startContainer", "start"), ("poststop", "delete --force")]
)
def test_hooks_are_the_interpreters(oci: Runtime, tmp_path: Path, kind: str, handed: str) -> None:
    config = oci.config()
    config["hooks"] = {kind: [{"path": "/bin/true"}]}
    oci.configure(config)
    made(oci)
    assert by_itself(oci, "state", "a")
    assert by_itself(oci, "start", "a") == (handed != "start")
    assert by_itself(oci, "delete", "--force", "a") == (handed == "start")


@pytest.mark.parametrize("damage", [None, b"", b"TBKNOW\x01\n", b"x" * 4096, -1, 30])
def test_a_container_without_its_file_or_with_a_damaged_one_goes_on(oci: Runtime, damage: bytes | int | None) -> None:
    """As one that was made before there was such a file."""
    made(oci)
    file = oci.root / "a" / "known"
    whole = file.read_bytes()
    file.unlink()
    if damage is not None:
        file.write_bytes(damage if isinstance(damage, bytes) else whole[:damage])
    assert oci.state("a")["status"] == "created"
    assert not by_itself(oci, "start", "a")
    assert not by_itself(oci, "kill", "a", "KILL")
    until(lambda: stopped(oci))
    assert not by_itself(oci, "delete", "a")


def test_a_file_of_another_user_is_not_believed(oci: Runtime) -> None:
    made(oci)
    os.chown(oci.root / "a" / "known", 1000, 1000)
    assert not by_itself(oci, "state", "a")
    oci("delete", "--force", "a")


def test_another_process_with_its_number_is_not_it(oci: Runtime) -> None:
    made(oci)
    (oci.root / "a" / "process").write_text(f"{os.getpid()} 1\n")
    assert oci.state("a")["status"] == "stopped" and by_itself(oci, "state", "a")
    assert "not running" in oci("kill", "a", "KILL", check=False).stderr
    oci("delete", "a")


@pytest.mark.parametrize("name", ["USR1", "sigusr1", "10"])
def test_signals_have_names_and_numbers(oci: Runtime, name: str) -> None:
    ready, got = (oci.bundle / "rootfs" / file for file in ("ready", "got"))
    made(oci, "trap 'echo > /got' USR1; echo > /ready; while :; do sleep 0.01; done")
    oci("start", "a")
    until(ready.exists)
    assert by_itself(oci, "kill", "a", name)
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
    assert by_itself(oci, "kill", "-a", "a", "USR1")
    until(lambda: count.exists() and len(count.read_text().split()) == 3)
    oci("delete", "--force", "a")
    assert len(set(count.read_text().split())) == 3 == len(count.read_text().split())


def test_processes_that_are_left_are_the_interpreters(oci: Runtime) -> None:
    without_pid_namespace(oci)
    made(oci, "sleep 1000 & sleep 1000")
    oci("start", "a")
    until(lambda: len(json.loads(oci("ps", "--format", "json", "a").stdout)) >= 2)
    pids = json.loads(oci("ps", "--format", "json", "a").stdout)
    assert not by_itself(oci, "delete", "--force", "a")
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_cgroups_below_its_own_are_the_interpreters(oci: Runtime) -> None:
    made(oci)
    (all_hierarchies().used[0] / oci.config()["linux"]["cgroupsPath"].strip("/") / "below").mkdir()
    assert not by_itself(oci, "delete", "--force", "a")


def test_a_paused_container_is_the_interpreters_to_delete(oci: Runtime) -> None:
    made(oci)
    oci("start", "a")
    oci("pause", "a")
    assert not by_itself(oci, "delete", "--force", "a")


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
