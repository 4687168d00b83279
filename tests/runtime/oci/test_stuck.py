"""Commands that wait for what does not come: they end, or deletion by force ends them; and what was killed before it
executed its program is not taken for a program that ran."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.config.decode import encode
from runtime.config.default import default_config
from runtime.errors import TestbedError
from runtime.launcher import Launch, Message
from runtime.launcher.messages import EXECUTING
from runtime.oci.creation import config_of
from runtime.oci.force import _has_open
from runtime.oci.lifecycle import _check_executed
from runtime.oci.state import Record
from runtime.plan import steps as s
from runtime.processes import start_time
from tests.runtime.command_line import Runtime, unique
from tests.waiting import until

pytestmark = pytest.mark.root


def begun(runtime: Runtime, *arguments: str) -> subprocess.Popen[bytes]:
    null = subprocess.DEVNULL
    return subprocess.Popen(runtime.command(*arguments), cwd=runtime.bundle, stdin=null, stdout=null, stderr=null)


def test_a_paused_container_is_not_started(oci: Runtime) -> None:
    """Its process would wait for ever, and whoever starts it with it."""
    oci.shell("sleep 1000")
    oci("create", "a")
    oci("pause", "a")
    assert oci.state("a")["status"] == "paused"
    assert "it is paused" in oci("start", "a", check=False).stderr
    oci("resume", "a")
    assert oci.state("a")["status"] == "created"
    oci("start", "a")
    oci("delete", "--force", "a")


def test_a_paused_container_that_was_not_started_is_deleted(oci: Runtime) -> None:
    oci("create", "a")
    oci("pause", "a")
    oci("delete", "--force", "a")


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


# Adopts what a command leaves, and reaps it at once, as the first process of most hosts does.
_REAPER = """
import ctypes, os, sys
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
command = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
while True:
    pid, status = os.waitpid(-1, 0)
    if pid == command:
        print(os.waitstatus_to_exitcode(status), flush=True)
"""
Create = Callable[[str], None]


@pytest.fixture(params=["the host", "a reaper"])
def create(request: pytest.FixtureRequest, oci: Runtime) -> Iterator[Create]:
    """Create a container whose first process becomes a child of the host's, or of one that reaps it at once."""
    reapers: list[subprocess.Popen[str]] = []

    def below_a_reaper(name: str) -> None:
        command = [sys.executable, "-c", _REAPER, *oci.command("create", name)]
        null = subprocess.DEVNULL
        reapers.append(
            subprocess.Popen(command, cwd=oci.bundle, stdin=null, stdout=subprocess.PIPE, stderr=null, text=True)
        )
        assert reapers[-1].stdout is not None
        assert reapers[-1].stdout.readline() == "0\n"

    def below_the_host(name: str) -> None:
        oci("create", name)

    yield below_a_reaper if request.param == "a reaper" else below_the_host
    for reaper in reapers:
        reaper.kill()
        reaper.communicate()


def test_a_start_that_hangs_does_not_keep_the_container_from_being_deleted(oci: Runtime, create: Create) -> None:
    create("a")
    os.kill(oci.state("a")["pid"], signal.SIGSTOP)
    starting = begun(oci, "start", "a")
    until(lambda: is_locked(oci.root / "a" / "lock"))
    oci("delete", "--force", "a")
    assert starting.wait(10) != 0


def test_a_program_that_ends_at_once_has_been_started(oci: Runtime, create: Create) -> None:
    oci.configure({**oci.config(), "process": {**oci.config()["process"], "args": ["/bin/true"]}})
    for name in ("a", "b", "c"):
        create(name)
        oci("start", name)
        oci("delete", "--force", name)


def test_a_program_that_is_gone_by_then_is_not_found(oci: Runtime, create: Create) -> None:
    create("a")
    (oci.bundle / "rootfs/bin/sh").unlink()
    done = oci("start", "a", check=False)
    assert done.returncode == 1 and "not found in $PATH" in done.stderr
    oci("delete", "--force", "a")


@pytest.mark.parametrize(("kind", "why"), [(0, "killed before"), (EXECUTING, "")])
def test_the_last_word_tells_of_a_process_that_was_reaped(kind: int, why: str) -> None:
    """But the kernel has the say as long as it was not."""
    config = encode(default_config())
    record = Record("a", "/", "/", "", json.dumps(config), "0")
    pid = os.fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    died = replace(record, pid=pid, start_time=start_time(pid))
    with pytest.raises(TestbedError):
        _check_executed(Message(kind, 0, 1), died, config_of(record))
    os.waitpid(pid, 0)
    with pytest.raises(TestbedError, match=why) if why else nullcontext():
        _check_executed(Message(kind, 0, 1), died, config_of(record))


def test_a_hook_that_hangs_does_not_keep_the_container_from_being_deleted(oci: Runtime, tmp_path: Path) -> None:
    config = oci.config()
    script = f"echo $$ > {tmp_path}/hook; exec sleep 1000"
    config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    oci.configure(config)
    creating = begun(oci, "create", "a")
    try:
        until(lambda: (tmp_path / "hook").exists() and (tmp_path / "hook").read_text())
        oci("delete", "--force", "a")
        assert creating.wait(10) != 0
    finally:
        os.kill(int((tmp_path / "hook").read_text()), signal.SIGKILL)


def test_who_only_has_the_number_of_a_holder_is_left_alone(oci: Runtime) -> None:
    """The lock was taken by a process that passed it on and ended; here by one that closed the file, so to say."""
    oci("create", "a")
    with (oci.root / "a" / "lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        holder = subprocess.Popen(["sleep", "1000"], pass_fds=[lock.fileno()])
    try:
        done = oci("delete", "--force", "a", check=False)
        assert done.returncode == 1 and "another command works on it" in done.stderr
        assert holder.poll() is None  # and this process is still there
    finally:
        holder.kill()
        holder.wait()
    oci("delete", "--force", "a")


def test_the_holder_of_a_lock_is_who_has_the_file_open(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert _has_open(os.getpid(), tmp_path / "lock") and not _has_open(1, tmp_path / "lock")


def test_killed_before_it_executed_is_an_error() -> None:
    plan = s.Plan((s.Sync(1), s.Exec(("/bin/true",))))
    with Path(os.devnull).open("r+b") as null, Launch(plan, {fd: null.fileno() for fd in range(3)}) as launch:
        assert launch.next() is not None
        os.kill(launch.known_pid(), signal.SIGKILL)
        with pytest.raises(TestbedError, match="killed before it executed its program"):
            launch.next()
    with pytest.raises(ChildProcessError):
        os.waitpid(launch.pid, 0)


def test_killed_right_after_it_executed_is_none() -> None:
    plan = s.Plan((s.Exec(("/bin/sh", "-c", "kill -KILL $$")),))
    with Path(os.devnull).open("r+b") as null, Launch(plan, {fd: null.fileno() for fd in range(3)}) as launch:
        until(lambda: launch.pid or launch.next() is None)
        assert os.waitstatus_to_exitcode(os.waitpid(launch.pid, 0)[1]) == -signal.SIGKILL


ACTIONS = ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP"]


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_filter_that_forbids_everything(oci: Runtime, action: str, no_new_privileges: bool) -> None:
    """It forbids even to end: with an error, or with a signal."""
    forbid_everything(oci, action, no_new_privileges)
    done = oci("run", "a", check=False)
    assert done.returncode == 1 and "error: " in done.stderr and "Traceback" not in done.stderr, done
    oci("delete", "--force", "a")


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_start_below_a_filter_that_forbids_everything(
    oci: Runtime, create: Create, action: str, no_new_privileges: bool
) -> None:
    forbid_everything(oci, action, no_new_privileges)
    create("a")
    done = oci("start", "a", check=False)
    assert done.returncode == 1 and "error: " in done.stderr and "Traceback" not in done.stderr, done
    if action == "SCMP_ACT_ERRNO" and no_new_privileges:
        assert "not permitted" in done.stderr, "though it could not send this"
    oci("delete", "--force", "a")


def forbid_everything(oci: Runtime, action: str, no_new_privileges: bool) -> None:
    config = oci.config()
    config["linux"]["seccomp"] = {"defaultAction": action, "architectures": ["SCMP_ARCH_X86_64"]}
    config["process"]["noNewPrivileges"] = no_new_privileges
    oci.configure(config)


def test_a_run_whose_process_cannot_be_recorded_is_not_done_twice(oci: Runtime, tmp_path: Path) -> None:
    config = oci.config()
    del config["linux"]["cgroupsPath"]
    oci.configure(config)
    oci.shell("echo x >> /count; exec sleep 0.5")
    count, name = oci.bundle / "rootfs" / "count", unique("a")
    oci("run", name)
    assert count.read_text() == "x\n"
    inject = ["-einject=renameat2:error=ENOSPC:when=2", "-einject=rename:error=ENOSPC:when=2"]
    lines = oci.traced([*inject, "-e", "trace=renameat2,rename,write"], "run", name)
    assert [text for _, text in lines if "ENOSPC" in text and "process" in text], lines
    assert count.read_text() in ("x\n", "x\nx\n")
    oci("delete", "--force", name)
